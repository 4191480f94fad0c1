"""Errors that end a request: an HTTP status and a one-line message that says what, where and what to do."""

from collections.abc import Mapping

from pipelines.errors import InspectlineError

RETRY_SECONDS = 5
DELAY = "inspectline.delay"  # in the environment of a request: seconds before its answer is sent


class Refusal(InspectlineError):
    """Ends a request with `status` and the message as `error`; `retry_after`, in seconds, becomes Retry-After.

    The server holds the answer back for `delay` seconds, without a thread.
    """

    def __init__(
        self,
        status: int,
        message: str,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        delay: float = 0.0,
    ):
        super().__init__(message)
        self.status = status
        self.delay = delay
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        if retry_after:
            self.headers["Retry-After"] = str(retry_after)


def unavailable(message: str) -> Refusal:
    """Return a 503 with a Retry-After of a few seconds."""
    return Refusal(503, message, RETRY_SECONDS)
