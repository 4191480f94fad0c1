"""The exported graph as it is run: ONNX Runtime, one session, safe to share between threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.project import Resize
from pipelines.errors import BadPackage, first_line

if TYPE_CHECKING:
    import onnxruntime

OUTPUTS = ("score", "error_map", "embedding")
# The features of a fused score (`restoration.anomaly_score.evidence`) and their weights; graphs of a reconstruction
# score have neither.
EVIDENCE, SHARES = "evidence", "shares"


@dataclass(frozen=True)
class ScoringGraph:
    """An exported graph with what `score()` must know of it: the side of its square input, how images get
    there.

    `threads` is the number of threads one run may use; 0, the default, leaves it to ONNX Runtime. The session
    is made at first use.
    """

    path: Path
    input_size: int
    resize: Resize
    threads: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def session(self) -> onnxruntime.InferenceSession:
        """Return the session, loaded once.

        Raises BadPackage if the graph cannot be loaded or has other inputs or outputs.
        """
        with self._lock:
            return self._session

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait slow down everything else on a small machine, and gain little at
        # one image a time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base but Exception
            problem = f"not a graph that ONNX Runtime can load: {first_line(error)}"
            raise BadPackage(f"{self.path}: {problem}; fetch or export the model again") from error
        check_graph(session, self.path, self.input_size)
        return session


def check_graph(session: onnxruntime.InferenceSession, path: Path, size: int) -> None:
    """Raise BadPackage unless the graph takes `image` uint8 [N, size, size, 3] and gives all of OUTPUTS."""
    inputs = session.get_inputs()
    if [item.name for item in inputs] != ["image"] or inputs[0].type != "tensor(uint8)":
        described = ", ".join(f"`{item.name}` {item.type}" for item in inputs)
        raise BadPackage(f"{path}: takes {described}, not `image` tensor(uint8); export the model again")
    if isinstance(inputs[0].shape[0], int) or list(inputs[0].shape[1:]) != [size, size, 3]:
        shape = inputs[0].shape
        raise BadPackage(f"{path}: `image` is {shape}, not [N, {size}, {size}, 3]; export the model again")
    missing = [name for name in OUTPUTS if name not in {item.name for item in session.get_outputs()}]
    if missing:
        raise BadPackage(f"{path}: does not give {', '.join(missing)}; export the model again")
