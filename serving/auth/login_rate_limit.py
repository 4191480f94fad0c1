"""Rate limits for wrong passwords: for an account at an address, for an address, and for an account at new addresses.

An address from which an account has logged in before (`known`, see `pipelines.catalogue.login_addresses`) has a count
of its own for this account, so that guesses from elsewhere do not count there. What a limit means is decided in
`serving.auth.authentication`. Each process keeps the counts of the most recent names and addresses in memory.
"""

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

WINDOW = 300.0  # seconds
PER_PAIR = 10  # wrong passwords for one account from one address within the window
PER_ADDRESS = 30  # for any accounts from one address
PER_ACCOUNT = 100  # for one account from all addresses that it has not used
_KEPT = 30_000


class LoginLimits:
    """Counts wrong passwords by name key and network, whether or not the account exists."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def wait_seconds(self, name: str, network: str, known: bool = False) -> float:
        """Return the seconds before this network is below its limits for this account again; 0 if it is now."""
        with self._lock:
            return max(self._wait(key, most) for key, most in _counted(name, network, known))

    def failed(self, name: str, network: str, known: bool = False) -> None:
        """Record a wrong password."""
        with self._lock:
            for key, most in _counted(name, network, known):
                times = self._failures.setdefault(key, deque(maxlen=most))
                times.append(self._clock())
                self._failures.move_to_end(key)
            while len(self._failures) > _KEPT:
                self._failures.popitem(last=False)

    def _wait(self, key: Hashable, most: int) -> float:
        times = self._failures.get(key)
        if times is None or len(times) < most:
            return 0.0
        return max(0.0, times[0] + WINDOW - self._clock())


def network_of(remote: str) -> str:
    """Return the address to count by; for IPv6 the /64 network, since one machine may use all of it."""
    try:
        ip = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)


def _counted(name: str, network: str, known: bool) -> tuple[tuple[Hashable, int], ...]:
    """Return the counts that a wrong password adds to, each with its limit."""
    if known:
        return (((name, network, "known"), PER_PAIR),)
    return ((name, network), PER_PAIR), ((network,), PER_ADDRESS), (name, PER_ACCOUNT)
