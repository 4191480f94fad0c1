"""Rate limits for wrong passwords, for each account and for each network address.

An address from which an account has logged in before has its own count for this account, so that guesses from elsewhere
do not lock the owner out. Each process keeps the counts of the most recent names and addresses in memory.
"""

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

WINDOW = 300.0  # seconds
PER_ACCOUNT = 10  # wrong passwords for one account within the window
PER_ADDRESS = 30  # from one address
_KEPT = 10_000
_USED_SECONDS = 30 * 86_400.0


class LoginLimits:
    """Counts wrong passwords by name key and address, whether or not the account exists."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[Hashable, deque[float]] = OrderedDict()
        self._used: OrderedDict[tuple[str, str], float] = OrderedDict()

    def wait_seconds(self, name: str, remote: str) -> float:
        """Return the seconds before this address may try this account again; 0 if it may now."""
        with self._lock:
            return max(self._wait(key, most) for key, most in self._keys(name, _network(remote)))

    def failed(self, name: str, remote: str) -> None:
        """Record a wrong password."""
        with self._lock:
            for key, most in self._keys(name, _network(remote)):
                times = self._failures.setdefault(key, deque(maxlen=most))
                times.append(self._clock())
                self._failures.move_to_end(key)
            while len(self._failures) > _KEPT:
                self._failures.popitem(last=False)

    def succeeded(self, name: str, remote: str) -> None:
        """Record that the account is used from this address."""
        with self._lock:
            pair = (name, _network(remote))
            self._used[pair] = self._clock()
            self._used.move_to_end(pair)
            self._failures.pop(pair, None)
            while len(self._used) > _KEPT:
                self._used.popitem(last=False)

    def _keys(self, name: str, network: str) -> tuple[tuple[Hashable, int], ...]:
        pair = (name, network)
        if self._clock() - self._used.get(pair, -_USED_SECONDS) < _USED_SECONDS:
            return ((pair, PER_ACCOUNT),)
        return ((name, PER_ACCOUNT), ((network,), PER_ADDRESS))

    def _wait(self, key: Hashable, most: int) -> float:
        times = self._failures.get(key)
        if times is None or len(times) < most:
            return 0.0
        return max(0.0, times[0] + WINDOW - self._clock())


def _network(remote: str) -> str:
    """Return the address to count by; for IPv6 the /64 network, since one machine may use all of it."""
    try:
        ip = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)
