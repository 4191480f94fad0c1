"""The exported graph as it is run: ONNX Runtime, one session, safe to share between threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.model_settings import Resize
from pipelines.registry.onnx_session import check_input, check_outputs, open_session

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
        session = open_session(self.path, self.threads)
        check_graph(session, self.path, self.input_size)
        return session


def check_graph(session: onnxruntime.InferenceSession, path: Path, size: int) -> None:
    """Raise BadPackage unless the graph takes `image` uint8 [N, size, size, 3] and gives all of OUTPUTS."""
    check_input(session, path, size)
    check_outputs(session, path, OUTPUTS)
