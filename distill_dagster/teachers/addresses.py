"""Whether a teacher's address may be connected to, and to which resolved addresses exactly.

A name can resolve to anything: to this machine, to the network around it, to a cloud's metadata service (server-side
request forgery, CWE-918). So every resolved address is judged, those hidden in IPv6 forms included (RFC 4291 mapped and
compatible, RFC 6052 NAT64, RFC 3056 6to4, RFC 4380 Teredo), and the caller connects to what was judged, not to the name
again. Redirects are to be left off, or to be checked like a first address.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from distill_dagster.config.egress import EndpointClass
from distill_dagster.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Textual addresses of a host and port, in order of preference; raises OSError where there are none.
Resolver = Callable[[str, int], Sequence[str]]

#: Where clouds hand out credentials. No teacher lives there, whatever a file allows.
METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
_STRANGE = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class Checked:
    """An address that may be connected to.

    Attributes:
        scheme: http or https.
        host: The name as it was written, in lower case: for the Host header and the certificate.
        port: The port.
        addresses: What the name resolved to when it was judged; connect to one of these.
    """

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]


def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver; it also reads `127.1`, `0x7f000001` and `2130706433`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check(
    url: str, allow: Collection[str] = (), endpoint: EndpointClass = "third_party", resolver: Resolver | None = None
) -> Checked:
    """Judge a teacher's address before anything is sent to it.

    Args:
        url: The address, http or https, without user and password.
        allow: Names of hosts that may resolve to addresses that are refused otherwise.
        endpoint: The class that the teacher declares. `local` may be this machine only; `own_network` may also be
            private addresses; `third_party` only public ones.
        resolver: How a name becomes addresses; `resolve` by default.

    Raises:
        ConfigError: The address is malformed, does not resolve, or one of its addresses is refused.
    """
    scheme, host, port = _parts(url)
    place = f"teacher address {host}"
    try:
        texts = list((resolver or resolve)(host, port))
    except (OSError, UnicodeError) as error:
        raise ConfigError(place, f"it does not resolve ({error}).", "Check the name and the network.") from error
    if not texts:
        raise ConfigError(place, "it does not resolve.", "Check the name and the network.")
    named = host in {name.casefold().rstrip(".") for name in allow}
    for text in texts:
        fault = _fault(ipaddress.ip_address(text.partition("%")[0]), endpoint, named)
        if fault:
            raise ConfigError(
                place,
                f"it resolves to {text}, {fault}.",
                "Declare the teacher's `egress_class` (local or own_network) if that is what it is, or allow this "
                "host by name.",
            )
    return Checked(scheme, host, port, tuple(texts))


def _parts(url: str) -> tuple[str, str, int]:
    """Scheme, host and port. Faults do not repeat the address: it may hold a password."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise ConfigError("teacher address", "it cannot be read.", "Write it as https://host/path.") from error
    if parts.scheme not in ("http", "https"):
        raise ConfigError("teacher address", f"its scheme is {parts.scheme!r}.", "Only http and https are spoken.")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ConfigError("teacher address", "it holds a user or password.", "Name the variable that holds the key.")
    if not host or _STRANGE.search(url) or not host.isprintable():
        raise ConfigError("teacher address", "it has no readable host.", "Write it as https://host/path.")
    return parts.scheme, host, port if port is not None else (443 if parts.scheme == "https" else 80)


def embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """IPv4 addresses that an IPv6 one stands for, by any of the known ways."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    isatap = int(address) >> 32 & 0xFFFFFFFF in (0x5EFE, 0x02005EFE)
    if isatap or any(address in network for network in _NAT64):
        yield low
    if address in _COMPATIBLE and int(low) > 1:
        yield low


def _fault(address: Address, endpoint: EndpointClass, named: bool) -> str | None:
    """Why an address may not be connected to; None where it may."""
    inner = list(embedded(address))
    every = [address, *inner]
    if any(one in METADATA for one in every):
        return "a cloud's metadata service"
    for one in inner or [address]:
        if one.is_unspecified:
            return "no address at all"
        if one.is_multicast or one == ipaddress.IPv4Address("255.255.255.255"):
            return "an address of many machines"
        if named:
            continue
        if one.is_loopback and (not inner or getattr(address, "ipv4_mapped", None)):
            if endpoint == "third_party":
                return "this machine"
            continue
        if endpoint == "local":
            return "not this machine, though the teacher is declared local"
        if one.is_link_local:
            return "a link-local address"
        if not _public(one) and not (endpoint == "own_network" and _own(one)):
            return "an address of a private network" if _own(one) else "an address that is reserved"
    if isinstance(address, ipaddress.IPv6Address) and inner and not named:
        if address in _NAT64[1] or not (address.ipv4_mapped or address in _NAT64[0] or address.sixtofour):
            return "an IPv4 address in disguise"
    return None


def _public(address: Address) -> bool:
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not address.is_reserved and not site_local


def _own(address: Address) -> bool:
    """Private networks that a teacher of one's own may live in (RFC 1918, 4193, 6598)."""
    if isinstance(address, ipaddress.IPv4Address):
        wide = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
        return address in _SHARED or any(address in ipaddress.IPv4Network(text) for text in wide)
    return address in ipaddress.IPv6Network("fc00::/7")
