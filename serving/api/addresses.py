"""Network addresses from which serving may fetch images: protection against server-side request forgery (SSRF).

A host is resolved once, all its addresses are checked, and the connection goes to a checked address, which prevents
DNS rebinding. Unusual notations (decimal, octal, hexadecimal, IPv6 forms that embed an IPv4 address) need no rules of
their own, because the check applies to the address that the system's resolver returns.
"""

import ipaddress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, 2.5.5.1, deprecated
# Special-purpose in IANA's registries, but not in `ipaddress` of every supported Python version.
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
# Metadata services, which hand out a machine's credentials.
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
    """Return why `address` (an IP address as text) is not fetched from, or None for a public address."""
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
