"""Serving's settings from environment variables; shared settings are in `pipelines.config.settings`."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.config.cpu import usable_cores
from pipelines.config.settings import settings
from pipelines.errors import SettingsError

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class ServingSettings:
    """Serving's settings; times are in seconds, sizes in bytes.

    Attributes:
        log_level: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        port: the TCP port to listen on.
        workers: number of processes.
        request_seconds: time in which a request must have arrived.
        poll_seconds: the interval between two polls of the registry.
        fetch_seconds: the timeout of fetching an image by its URL.
        max_bytes: the largest image.
        max_request_bytes: the largest request body.
        receive_bytes: the largest total size of all request bodies being received.
        journal_max_bytes: the largest size of the journal.
        journal: the journal's folder.
        journal_synced: whether each batch is flushed to disk before it is answered.
        onnx_threads: threads of one run of the network.
        wait_seconds: the longest time that a request waits for its job.
        waiting: requests that may wait for their job at a time; predictions keep the other threads.
        storing: requests that may store images at a time.
        logins: requests that may wait for their password to be verified at a time.
        queue: images that may be queued for the network.
        decode_pixels: pixels of all images being decoded at a time.
        allowed_hosts: hosts (`host` or `host:port`) that may have a private address.
        auth: `accounts`, or `none` on a closed network.
        proxies: trusted reverse proxies in front of serving, whose `X-Forwarded-*` headers count.
        secret_key: the key that signs tokens; empty to generate and store one.
        token_hours: hours until a token expires.
    """

    log_level: str
    port: int
    workers: int
    request_seconds: float
    poll_seconds: float
    fetch_seconds: float
    max_bytes: int
    max_request_bytes: int
    receive_bytes: int
    journal_max_bytes: int
    journal: Path
    journal_synced: bool
    onnx_threads: int
    wait_seconds: float
    waiting: int
    storing: int
    logins: int
    queue: int
    decode_pixels: int
    allowed_hosts: frozenset[str]
    auth: str
    proxies: int
    secret_key: str = field(repr=False)
    token_hours: float


def serving_settings(environ: Mapping[str, str] | None = None) -> ServingSettings:
    """Read serving's settings from `environ` (default: the process's environment).

    Raises:
        SettingsError: a variable holds something that cannot be used.
    """
    env = os.environ if environ is None else environ

    def number(name: str, default: float, least: float, most: float) -> float:
        text = env.get(name, "").strip()
        try:
            value = float(text) if text else default
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise SettingsError(f"{name} is {text!r}: give a number from {least:g} to {most:g}")
        return value

    def words(name: str) -> frozenset[str]:
        return frozenset(word.lower() for word in env.get(name, "").replace(",", " ").split())

    if env.get("INSPECTLINE_ALLOWED_BUCKETS", "").strip():
        raise SettingsError(
            "INSPECTLINE_ALLOWED_BUCKETS is replaced by read_from: list s3://bucket/prefix/ in the project files that "
            "read from there, and unset the variable"
        )
    auth = env.get("INSPECTLINE_AUTH", "").strip().lower() or "accounts"
    if auth not in ("accounts", "none"):
        raise SettingsError(f"INSPECTLINE_AUTH is {auth!r}: give accounts, or none on a closed network")
    sync = env.get("INSPECTLINE_JOURNAL_SYNC", "").strip().lower() or "off"
    if sync not in ("on", "off"):
        raise SettingsError(f"INSPECTLINE_JOURNAL_SYNC is {sync!r}: give on, or off")
    level = env.get("INSPECTLINE_LOG_LEVEL", "").strip().upper() or "INFO"
    if level not in _LOG_LEVELS:
        raise SettingsError(f"INSPECTLINE_LOG_LEVEL is {level!r}: give {', '.join(_LOG_LEVELS)}")
    max_image = number("INSPECTLINE_MAX_IMAGE_MB", 32, 0.001, 1024)
    cores = usable_cores()
    threads = number("INSPECTLINE_THREADS", 32, 1, 10_000)
    journal = env.get("INSPECTLINE_JOURNAL", "").strip()
    return ServingSettings(
        log_level=level,
        port=int(number("PORT", 8000, 0, 65_535)),
        workers=int(number("INSPECTLINE_WORKERS", 1, 1, 1024)),
        request_seconds=number("INSPECTLINE_REQUEST_SECONDS", 30, 0.1, 3600),
        poll_seconds=number("INSPECTLINE_POLL_SECONDS", 5, 0.05, 3600),
        fetch_seconds=number("INSPECTLINE_FETCH_SECONDS", 15, 0.1, 600),
        max_bytes=int(max_image * (1 << 20)),
        max_request_bytes=int(number("INSPECTLINE_MAX_REQUEST_MB", 2 * max_image, max_image, 4096) * (1 << 20)),
        receive_bytes=int(number("INSPECTLINE_RECEIVE_MB", 256, 0.1, 1 << 20) * (1 << 20)),
        journal_max_bytes=int(number("INSPECTLINE_JOURNAL_MAX_MB", 4096, 1, 1 << 20) * (1 << 20)),
        journal=Path(journal) if journal else settings(env).cache / "journal",
        journal_synced=sync == "on",
        onnx_threads=int(number("INSPECTLINE_ONNX_THREADS", cores, 1, 256)),
        wait_seconds=number("INSPECTLINE_WAIT_SECONDS", 30, 0, 600),
        waiting=int(number("INSPECTLINE_WAITING", max(1, threads // 4), 0, 10_000)),
        storing=int(max(1, threads // 2)),
        logins=int(max(1, threads * 3 // 4)),
        queue=int(number("INSPECTLINE_QUEUE", 64, 1, 100_000)),
        decode_pixels=int(number("INSPECTLINE_DECODE_MEGAPIXELS", 16, 0.1, 10_000) * 1_000_000),
        allowed_hosts=words("INSPECTLINE_ALLOWED_HOSTS"),
        auth=auth,
        proxies=int(number("INSPECTLINE_PROXIES", 0, 0, 10)),
        secret_key=env.get("INSPECTLINE_SECRET_KEY", "").strip(),
        token_hours=number("INSPECTLINE_TOKEN_HOURS", 12, 0.001, 8760),
    )
