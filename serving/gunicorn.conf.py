# ruff: noqa: N999  the name is gunicorn's
"""How gunicorn runs serving: one process with threads, unless INSPECTLINE_WORKERS says otherwise.

Each worker loads the app itself (`preload_app` stays off): threads and ONNX Runtime's sessions do not survive a fork.
"""

import ctypes
import gc
import os
import tempfile
from pathlib import Path

from pipelines.config.cpu import usable_cores
from serving.logs import configuration

if hasattr(_libc := ctypes.CDLL(None), "mallopt"):  # glibc
    # Decoded images go back to the system at once, instead of being kept for each thread: 90 MB of 270, measured.
    _libc.mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD, bytes
    # What is smaller stays: given back and asked for anew with each image, it costs 1.5 ms of 13.
    _libc.mallopt(-1, 16 << 20)  # M_TRIM_THRESHOLD, bytes
    _libc.mallopt(-8, 2)  # M_ARENA_MAX

gc.disable()  # until all is imported, of which nothing is garbage
wsgi_app = "serving.app:create_app()"
bind = f"{os.environ.get('HOST') or '127.0.0.1'}:{os.environ.get('PORT') or '8000'}"
workers = int(os.environ.get("INSPECTLINE_WORKERS") or 1)
# One for each request under way, most of them waiting: what takes the processor or memory has limits of its own.
threads = int(os.environ.get("INSPECTLINE_THREADS") or max(32, 4 * usable_cores()))
worker_class = "serving.worker.Worker"
logger_class = "serving.worker.Log"
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a heartbeat must not wait for a disk
if workers > 1:
    # Before a worker imports it: there, each writes its figures for all (serving.metrics).
    _figures = tempfile.TemporaryDirectory(prefix="inspectline-metrics-", dir=worker_tmp_dir)
    raw_env = [f"PROMETHEUS_MULTIPROC_DIR={_figures.name}"]
preload_app = False
control_socket_disable = True  # nobody steers it from beside
timeout = 120  # seconds without a sign of life
graceful_timeout = 30  # seconds to finish what was begun, after SIGTERM
keepalive = 15
logconfig_dict = configuration(os.environ.get("INSPECTLINE_LOG_LEVEL", "INFO").upper())


def post_worker_init(worker):
    """Load what the cache remembers and start the threads, before the first request is taken."""
    worker.wsgi.extensions["inspectline"].start()
    gc.collect()
    gc.freeze()  # what has been imported so far stays: no collection has to go through it again
    gc.enable()


def worker_exit(server, worker):
    """Write what is left, after the last request was answered."""
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions["inspectline"].stop()


def child_exit(server, worker):
    """Take back the state that a worker told of itself; its counts stay."""
    if workers > 1:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)
