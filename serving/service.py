"""The parts of one serving process and its background threads, created by `create_app` and started after the fork."""

import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from pipelines.config.cpu import usable_cores
from pipelines.config.settings import settings
from serving import catalogue
from serving.auth.authentication import Accounts
from serving.auth.tokens import Tokens, signing_key
from serving.limits.decode_limiter import DecodingRoom
from serving.limits.fetch import Fetcher
from serving.limits.job_wait import Room
from serving.models.reloader import Reloader
from serving.models.served_models import Predictor
from serving.recording.journal import Journal
from serving.recording.past import PastPredictions
from serving.recording.recorder import Recorder
from serving.settings import ServingSettings

_LATER_SECONDS = 0.5  # so that the first answers do not compete with imports they do not need
_SEVERAL_AT_ONCE = 8  # images judged in parallel, of requests with several


class Service:
    """The parts of a serving process; no thread runs until `start`."""

    def __init__(self, config: ServingSettings):
        self.config = config
        self.default_project = settings().default_project
        self.fetcher = Fetcher(config.max_bytes, config.fetch_seconds, config.allowed_hosts)
        self.predictor = Predictor()
        self.decoding = DecodingRoom(config.decode_pixels, max(2, usable_cores()))
        self.several = ThreadPoolExecutor(_SEVERAL_AT_ONCE, "several")  # starts its threads on demand
        self.journal = Journal(config.journal, config.journal_max_bytes, config.journal_synced)
        self.recorder = Recorder(self.journal)
        self.past = PastPredictions()
        self.reloader = Reloader(self.predictor, config)
        self.waiting = Room(config.waiting)
        self.storing = Room(config.storing)
        self.ending = threading.Event()
        secret = _key(config)
        self.accounts = Accounts(Tokens(secret, config.token_hours), secret, config.logins)
        self.started_at = datetime.now(UTC)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._process: int | None = None
        self._later = threading.Timer(_LATER_SECONDS, catalogue.load)
        self._later.daemon = True

    def start(self) -> None:
        """Start the threads once, in the process that answers: threads and sessions do not survive a fork."""
        with self._lock:
            if self._process == os.getpid():
                return
            if self._process is not None:
                raise RuntimeError("serving was started before a fork; let each process make its own app")
            self._process = os.getpid()
            self.journal.start()
            self.recorder.start()
            self.reloader.start()
            self._later.start()

    def stop(self) -> None:
        """Stop the threads; answered predictions are stored already."""
        self.ending.set()
        with self._lock:
            if self._process == os.getpid():
                self._later.cancel()
                self.reloader.stop()
                self.journal.stop()
                self.recorder.stop()

    @property
    def uptime_seconds(self) -> float:
        """Seconds since this process was started."""
        return time.monotonic() - self._began


def _key(config: ServingSettings) -> str:
    """Return the key that signs tokens; without accounts, a random one that is not stored."""
    if config.auth == "none":
        return secrets.token_urlsafe(48)
    return signing_key(config.secret_key, settings().cache)
