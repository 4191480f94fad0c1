"""The contenders that `benchmarks.speed` times, each in its own process that idles while another is timed.

Separate processes keep the threads of the frameworks apart, and timing in turns spreads other load of the machine over
all of them. The CPU time of a training step is measured as well, since it does not depend on other load.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InspectlineError

Figures = dict[str, float]
BATCHES = 4
# Steps after which most shapes of defects are cached.
SHAPES_DRAWN = 400
MANY = 16


class NotTimed(InspectlineError):
    """Something could not be timed; the message says why."""


class Timed(Protocol):
    """A contender, constructed from a job.

    Attributes:
        facts: properties of the contender that do not change between rounds.
    """

    facts: dict[str, Any]

    def __init__(self, job: dict[str, Any]) -> None:
        """Prepare and warm up."""

    def round(self) -> Figures:
        """Return the figures of one round."""


class OurTraining:
    """Training steps on ready batches, as the peer takes them, and on those of the stream, as in `fit`; on a GPU the
    step renders the latter (`synthetic.device`).
    """

    def __init__(self, job: dict[str, Any]) -> None:
        from benchmarks.arithmetic import step_operations
        from pipelines.tasks.anomaly.fitting.batches import BatchStream
        from pipelines.tasks.anomaly.fitting.state import FitSettings
        from pipelines.tasks.anomaly.fitting.trainer import _Training
        from pipelines.tasks.anomaly.synthetic.device import draws_on_device

        images, size = job["images"], job["batch_size"]
        settings = FitSettings(
            job["preset"], images.shape[1], size, epochs=10**6, seconds=float("inf"), precision=job["precision"]
        )
        self._batches = BatchStream(images, size, settings.seed, on_device=draws_on_device())
        self._training = _Training(images, settings, None, None, self._batches.textures)
        self._steps, self._next = job["steps"], 0
        for step in range(SHAPES_DRAWN):
            self._batches.batch(step)
        self._stream = self._batches.from_step(0)
        drawn = BatchStream(images, size, settings.seed)
        self._ready = [drawn.batch(step) for step in range(BATCHES)]
        self.facts = {
            "precision": self._training.precision,
            "ready": self._ready,
            "operations": step_operations(self._training.network),
        }
        for _ in range(2):
            self._training.take(self._ready[0])

    def round(self) -> Figures:
        """Return the seconds of a step on ready batches (`step`, and `processor` for CPU time) and on the stream's
        (`streamed`), of waiting for a batch (`waited`) and of drawing one (`made`); and the peak memory so far, in
        bytes, of the `device` or the `process`.
        """
        from benchmarks.arithmetic import highest_memory

        ready = _steps(self._training.take, self._ready, self._steps)
        # Use up the batches that were prefetched before the round.
        for _ in range(self._batches.workers()):
            self._training.take(next(self._stream))
        waited, begun = 0.0, time.perf_counter()
        for _ in range(self._steps):
            asked = time.perf_counter()
            batch = next(self._stream)
            waited += time.perf_counter() - asked
            self._training.take(batch)
        streamed = (time.perf_counter() - begun) / self._steps
        self._next += self._steps
        drawing = _seconds(self._batches.batch, range(self._next, self._next + self._steps)) / self._steps
        where, memory = highest_memory()
        return {**ready, "streamed": streamed, "waited": waited / self._steps, "made": drawing, where: memory}


class PeerTrainingSteps:
    """The same training steps in PyTorch, on the same batches."""

    def __init__(self, job: dict[str, Any]) -> None:
        os.environ["KERAS_BACKEND"] = "torch"
        try:
            import torch
        except ImportError:
            raise NotTimed("PyTorch is not installed, so that training is timed alone") from None
        from benchmarks.torch_peer import PeerTraining

        # PyTorch uses a thread for each physical core by default, TensorFlow one for each logical core.
        torch.set_num_threads(job["threads"])
        side = job["images"].shape[1]
        self._training = PeerTraining(job["preset"], side, job["precision"], job["compiled"])
        self._steps, self._ready = job["steps"], job["ready"]
        self.facts = {"torch": torch.__version__}
        for _ in range(2):
            self._training.take(self._ready[0])

    def round(self) -> Figures:
        """Return the seconds and the CPU seconds of a step."""
        return _steps(self._training.take, self._ready, self._steps)


class FastestProduct:
    """The fastest matrix product, with Keras's backend and in the precision of the training."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._dtype = job["precision"].removeprefix("mixed_")
        self.facts: dict[str, Any] = {}

    def round(self) -> Figures:
        """Return operations per second."""
        from benchmarks.arithmetic import highest_rate

        return {"rate": highest_rate(self._dtype)}


class ExportedGraph:
    """The exported graph through `score()`, in a bare ONNX Runtime session, and in int8."""

    def __init__(self, job: dict[str, Any]) -> None:
        import onnxruntime

        os.environ["KERAS_BACKEND"] = "tensorflow"
        if find_spec("tensorflow") is None:
            raise NotTimed("TensorFlow, which writes the graph, is not installed, so that scoring is not timed")
        from pipelines.tasks.anomaly.export import write_graph
        from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
        from pipelines.tasks.anomaly.quantise import quantise
        from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
        from pipelines.tasks.anomaly.restoration.network import build_network

        images = job["images"]
        side = images.shape[1]
        with tempfile.TemporaryDirectory(prefix="speed-") as folder:
            path = write_graph(inspection_model(build_network(job["preset"], side)), Path(folder) / "model.onnx")
            graphs = {"": path, "int8_": quantise(path, images, Path(folder) / "int8.onnx")}
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = job["threads"]
            self._bare = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self._graphs = {
                name: ScoringGraph(graph_path, side, job["resize"], job["threads"])
                for name, graph_path in graphs.items()
            }
            for graph in self._graphs.values():
                graph.session()
        self._times, self._raw = job["steps"], job["raw"]
        self._prepared = np.resize(images, (MANY, *images.shape[1:]))
        self.facts = {"graph": True}

    def round(self) -> Figures:
        """Return the least seconds per image over the round, for one and for sixteen images at a time."""
        from pipelines.tasks.anomaly.predict import predict

        figures: Figures = {}
        for _ in range(self._times):
            for count in (1, MANY):
                raw = [self._raw[place % len(self._raw)] for place in range(count)]
                prepared = {"image": self._prepared[:count]}
                seconds = {
                    f"{name}score_{count}": self._score(predict, graph, raw) for name, graph in self._graphs.items()
                }
                seconds[f"bare_{count}"] = _seconds(lambda fed: self._bare.run(None, fed), [prepared])
                for name, value in seconds.items():
                    figures[name] = min(figures.get(name, float("inf")), value / count)
        return figures

    @staticmethod
    def _score(predict: Callable[..., Any], graph: Any, images: list[NDArray[np.uint8]]) -> float:
        return _seconds(lambda given: predict(graph, given), [images])


class Turn:
    """A process that holds a contender and times it on request."""

    def __init__(self, kind: type[Timed], job: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, job), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.facts = self._answer()
        except NotTimed:
            self._process.join()
            raise

    def round(self) -> Figures:
        """Return the figures of one round."""
        self._pipe.send(True)
        return self._answer()

    def end(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise InspectlineError("a process that was timed died; its error is above") from None
        if isinstance(answer, NotTimed):
            raise answer
        return answer


def _serve(pipe: Connection, kind: type[Timed], job: dict[str, Any]) -> None:
    threads = str(job["threads"])
    os.environ |= {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads, "TF_CPP_MIN_LOG_LEVEL": "3"}
    # All processes share a single GPU.
    os.environ |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        timed = kind(job)
    except NotTimed as error:
        pipe.send(error)
        return
    pipe.send(timed.facts)
    try:
        while pipe.recv():
            pipe.send(timed.round())
    except EOFError:
        return


def _again(batches: list[Any]) -> Iterable[Any]:
    while True:
        yield from batches


def _steps(take: Callable[[Any], Any], batches: list[Any], steps: int) -> Figures:
    used = time.process_time()
    seconds = _seconds(take, islice(_again(batches), steps))
    return {"step": seconds / steps, "processor": (time.process_time() - used) / steps}


def _seconds(act: Callable[[Any], Any], over: Iterable[Any]) -> float:
    start = time.perf_counter()
    for item in over:
        act(item)
    return time.perf_counter() - start
