"""Gunicorn's threaded worker, except that an idle camera does not hold up its end."""

from gunicorn.workers.gthread import ThreadWorker

_GLANCE_SECONDS = 0.2


class Worker(ThreadWorker):
    """Ends as soon as the last request is answered.

    Gunicorn 26 waits for idle keep-alive connections until `graceful_timeout`, longer than Docker lets it.
    """

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Take what has come in, and look again soon while ending."""
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, _GLANCE_SECONDS))

    def murder_keepalived(self) -> None:
        """Close idle connections that are over time; while ending, all of them."""
        if not self.alive:
            for connection in self.keepalived_conns:
                connection.timeout = 0
        super().murder_keepalived()
