"""Which network addresses serving may fetch images from.

A host is resolved once, every address it has is judged, and the connection goes to the judged address itself: a DNS
name that changes its answer changes nothing. Odd notations (decimal, octal, hexadecimal, IPv6 forms that hold an IPv4
address) need no rule of their own, because what is judged is the address that the system's resolver makes of them.
"""

import ipaddress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, 2.5.5.1, deprecated
# Special in IANA's registries, and not known as such to every Python that we run on.
_SPECIAL = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments, RFC 6890
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "64:ff9b:1::/48",  # NAT64 for local use, RFC 8215
        "fec0::/10",  # site-local, RFC 3879
        "3fff::/20",  # documentation, RFC 9637
        "5f00::/16",  # segment routing, RFC 9602
    )
)
# Services that hand out a machine's credentials on addresses that look like others'.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Google, Azure, OpenStack
        "169.254.170.2",  # AWS containers
        "fd00:ec2::254",  # AWS, IPv6
        "168.63.129.16",  # Azure's host, a public address
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
    )
)


def judge(address: str) -> str | None:
    """Return what is wrong with fetching from `address` (an IP address as text), or None for a public one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and (inner := _embedded(ip)) is not None:
        return judge(str(inner))
    if ip in _METADATA:
        return "a metadata address"
    for kind, holds in (
        ("a loopback address", ip.is_loopback),
        ("a link-local address", ip.is_link_local),
        ("no address of one host", ip.is_unspecified or ip.is_multicast),
        ("a private address", ip.is_private),
        ("no public address", not ip.is_global or ip.is_reserved or any(ip in network for network in _SPECIAL)),
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
