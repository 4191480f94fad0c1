"""Which network addresses serving may fetch images from.

A host is resolved once, every address it has is judged, and the connection goes to the judged address itself: a DNS
name that changes its answer changes nothing. Odd notations (decimal, octal, hexadecimal, IPv6 forms that hold an IPv4
address) need no rule of their own, because what is judged is the address that the system's resolver makes of them.
"""

import ipaddress
from ipaddress import IPv4Address, IPv6Address, IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, 2.5.5.1, deprecated
# Services that hand out a machine's credentials on addresses that look like others'.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Google, Azure, OpenStack
        "169.254.170.2",  # AWS containers
        "fd00:ec2::254",  # AWS, IPv6
        "168.63.129.16",  # Azure's host, a public address
        "100.100.100.200",  # Alibaba
    )
)


def judge(address: str) -> str | None:
    """Return what is wrong with fetching from `address` (an IP address as text), or None for a public one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if (inner := _embedded(ip)) is not None:
            return judge(str(inner))
        if ip in _NAT64_LOCAL or ip.is_site_local:
            return "a private address"
    if ip in _METADATA:
        return "a metadata address"
    for kind, holds in (
        ("a loopback address", ip.is_loopback),
        ("a link-local address", ip.is_link_local),
        ("no address of one host", ip.is_unspecified or ip.is_multicast),
        ("a private address", ip.is_private),
        ("no public address", not ip.is_global or ip.is_reserved),
    ):
        if holds:
            return kind
    return None


def never(address: str) -> bool:
    """Return whether `address` is refused even for a host that the settings allow by name."""
    return judge(address) in ("a metadata address", "a link-local address")


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that traffic to `ip` reaches, if it holds one."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return None
