"""An HTTP connection to an address that was checked before, with a deadline for the whole exchange."""

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from functools import cache

import certifi

CONNECT_SECONDS = 5.0
DEFAULT_PORTS = {"http": 80, "https": 443}


class PinnedConnection(http.client.HTTPConnection):
    """An HTTP(S) connection to one of the given addresses, whose socket is shut down at the deadline.

    The Host header, SNI and the certificate check use the host's name.
    """

    def __init__(self, scheme: str, host: str, port: int, addresses: Iterable[str], deadline: float):
        # Before the parent's __init__, which reads it to decide whether the Host header names the port.
        self.default_port = DEFAULT_PORTS[scheme]
        super().__init__(host, port)
        self._secure = scheme == "https"
        self._addresses = list(addresses)
        self._deadline = deadline
        self._watch: threading.Timer | None = None

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._deadline

    def connect(self) -> None:
        """Connect to the first address that accepts the connection."""
        self.sock = self._connected()
        if self._secure:
            # The handshake comes after the timer has started, so that the deadline covers it.
            self.sock = _tls().wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self._watch = threading.Timer(max(0.0, self._deadline - time.monotonic()), _cut, (self.sock,))
        self._watch.daemon = True
        self._watch.start()
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()

    def _connected(self) -> socket.socket:
        failure: OSError = OSError("the host has no address")
        for address in self._addresses:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("time is up")
            try:
                connected = socket.create_connection((address, self.port), timeout=min(left, CONNECT_SECONDS))
            except OSError as error:
                failure = error
                continue
            connected.settimeout(max(0.01, self._deadline - time.monotonic()))
            return connected
        raise failure

    def end(self) -> None:
        """Close the connection and cancel its timer; http.client calls `close` earlier, before the body is read."""
        if self._watch is not None:
            self._watch.cancel()
        self.close()


def _cut(sock: socket.socket) -> None:
    """Shut `sock` down, which ends a read in another thread even while bytes trickle in."""
    with contextlib.suppress(OSError):  # closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _tls() -> ssl.SSLContext:
    """Return a context that trusts the CA bundle named in the environment, by default certifi's."""
    return _trusting(os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where())


@cache
def _trusting(authorities: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authorities)  # takes about 20 ms
