"""Errors that end a request: an HTTP status and a one-line message that says what, where and what to do."""

from collections.abc import Mapping

from pipelines.errors import InspectlineError

RETRY_SECONDS = 5


class Refusal(InspectlineError):
    """Ends a request with `status` and the message as `error`; `retry_after`, in seconds, becomes Retry-After."""

    def __init__(
        self, status: int, message: str, retry_after: int | None = None, headers: Mapping[str, str] | None = None
    ):
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        if retry_after:
            self.headers["Retry-After"] = str(retry_after)


def unavailable(message: str) -> Refusal:
    """Return a 503 with a Retry-After of a few seconds."""
    return Refusal(503, message, RETRY_SECONDS)
