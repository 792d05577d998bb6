"""The client address behind trusted proxies, from X-Forwarded-For or Forwarded (RFC 7239)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

from starlette.types import Scope

from .._internal.validation import require, require_choice
from ..exceptions import ConfigurationError

ForwardedHeader = Literal["x-forwarded-for", "forwarded"]
"""The header in which proxies report the client."""

Address = IPv4Address | IPv6Address
AddressRange = IPv4Network | IPv6Network
_PORT: Final = re.compile(r":(?:[0-9]*|_[0-9A-Za-z._-]+)\Z")  # the second as RFC 7239, 6.1 has it
_MAX_LENGTH: Final = 4096  # characters
_MAX_PROXIES: Final = 32
_MARK: Final = re.compile(r'[",]')
_NAME: Final = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = re.compile(rf"""[ \t]*(?:({_NAME})=({_NAME}|"[^"\\]*")[ \t]*)?(;|\Z)""")


def hops(scope: Scope, header: ForwardedHeader) -> Iterator[Address | None]:
    """Yield the addresses nearest proxy first; `None` for what is not an IP address.

    Each proxy appends. Clients may have written everything to the left of what a trusted proxy
    appended, so the header is read from the right: nothing further left changes what has been read.
    """
    given = (value for name, value in scope["headers"] if name == header.encode())
    text = b",".join(given).decode("latin-1")
    if len(text) > _MAX_LENGTH:
        return iter((None,))
    if header == "forwarded":
        return (_node(_for(element)) for element in _elements(text))
    return (_node(hop.strip(" \t")) for hop in reversed(text.split(",")))


def address_of(text: str) -> Address | None:
    """Parse an address. An IPv4 address that is mapped into IPv6 is returned as IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _node(text: str) -> Address | None:
    """Parse an address as proxies write it, perhaps with a port."""
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]")
        return address_of(inner) if bracket and _PORT.sub("", port) == "" else None
    return address_of(_PORT.sub("", text) if text.count(":") == 1 else text)


def _elements(text: str) -> Iterator[str]:
    """Yield the elements of Forwarded from the right. A quoted comma separates nothing."""
    end, quoted = len(text), False
    for mark in _MARK.finditer(text[::-1]):
        if mark[0] == '"':
            quoted = not quoted
        elif not quoted:
            begin = len(text) - mark.start()
            yield text[begin:end]
            end = begin - 1
    yield text[:end]


def _for(element: str) -> str:
    """Return the `for` of an element; empty if it has none or several, or is malformed.

    A backslash makes it malformed. Read from the right, it is ambiguous which quotes it escapes,
    and no address needs one.
    """
    nodes: list[str] = []
    at, more = 0, True
    while more:
        pair = _PAIR.match(element, at)
        if pair is None:
            return ""
        if (pair[1] or "").lower() == "for":
            nodes.append(pair[2].strip('"'))
        at, more = pair.end(), bool(pair[3])
    return nodes[0] if len(nodes) == 1 else ""


class Proxies:
    """The trusted proxies and the header in which they report the client address.

    Raises `ConfigurationError` for invalid options.
    """

    def __init__(
        self, trusted: str | Iterable[str] = (), forwarded: ForwardedHeader = "x-forwarded-for"
    ) -> None:
        is_list = isinstance(trusted, Iterable)
        require(is_list, "trusted_proxies must be a list of networks", trusted)
        require_choice("forwarded", forwarded, ForwardedHeader)
        self.trusted = (trusted,) if isinstance(trusted, str) else tuple(trusted)
        self.forwarded = forwarded
        self._networks = tuple(map(network_of, self.trusted))
        if forwarded != "x-forwarded-for":
            requirement = f"trusted_proxies must name the proxies that write {forwarded!r}"
            require(self._networks, requirement, trusted)

    def client_of(self, scope: Scope) -> Address | None:
        """Return the address of the client; `None` if it cannot be determined."""
        client = scope.get("client")
        address = address_of(str(client[0])) if client else None
        if address is None or not is_in(address, self._networks):
            return address
        # The first address that is no trusted proxy, or the begin of a chain of trusted proxies.
        for number, address in enumerate(hops(scope, self.forwarded)):
            if address is None or not is_in(address, self._networks):
                return address
            if number == _MAX_PROXIES:
                return None
        return address

    def __repr__(self) -> str:
        networks = f", trusted_proxies={[*map(str, self._networks)]!r}" if self._networks else ""
        header = f", forwarded={self.forwarded!r}" if self.forwarded != "x-forwarded-for" else ""
        return networks + header


def is_in(address: Address, networks: Iterable[AddressRange]) -> bool:
    """Return whether an address is in one of the networks."""
    return any(address in network for network in networks)


def network_of(text: object) -> AddressRange:
    """Parse a network or an address of an option. Raises `ConfigurationError`."""
    try:
        if not isinstance(text, str) or not text:  # a number would be read as an address
            raise ValueError("write it as text")
        network = ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"A network must be like 10.0.0.0/8, 192.0.2.7 or ::1, got {text!r} ({error})."
        ) from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        return network if mapped is None else IPv4Network((mapped, network.prefixlen - 96))
    return network
