"""Opens the graph of a package with ONNX Runtime, and checks what it takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import BadPackage, first_line

if TYPE_CHECKING:
    import onnxruntime


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Return a session for the graph at `path`, safe to share between threads.

    Args:
        path: the ONNX file.
        threads: threads that one run may use; 0, the default, leaves it to ONNX Runtime.

    Raises:
        BadPackage: ONNX Runtime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait slow down everything else on a small machine, and gain little at one image a
    # time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base but Exception
        problem = f"not a graph that ONNX Runtime can load: {first_line(error)}"
        raise BadPackage(f"{path}: {problem}; fetch or export the model again") from error


def check_input(session: onnxruntime.InferenceSession, path: Path, size: int) -> None:
    """Raise BadPackage unless the graph takes `image` uint8 [N, size, size, 3]."""
    inputs = session.get_inputs()
    if [item.name for item in inputs] != ["image"] or inputs[0].type != "tensor(uint8)":
        described = ", ".join(f"`{item.name}` {item.type}" for item in inputs)
        raise BadPackage(f"{path}: takes {described}, not `image` tensor(uint8); export the model again")
    if isinstance(inputs[0].shape[0], int) or list(inputs[0].shape[1:]) != [size, size, 3]:
        shape = inputs[0].shape
        raise BadPackage(f"{path}: `image` is {shape}, not [N, {size}, {size}, 3]; export the model again")


def check_outputs(session: onnxruntime.InferenceSession, path: Path, names: Sequence[str]) -> None:
    """Raise BadPackage unless the graph gives all of `names`."""
    missing = [name for name in names if name not in {item.name for item in session.get_outputs()}]
    if missing:
        raise BadPackage(f"{path}: does not give {', '.join(missing)}; export the model again")
