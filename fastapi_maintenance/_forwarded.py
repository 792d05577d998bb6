"""Parse client addresses from X-Forwarded-For and Forwarded (RFC 7239)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from starlette.types import Scope

from .types import ForwardedHeader

__all__ = ["Address", "address_of", "hops"]

Address = IPv4Address | IPv6Address

_PORT: Final = re.compile(r":(?:[0-9]*|_[0-9A-Za-z._-]+)\Z")  # the second as RFC 7239, 6.1 has it
_MAX_LENGTH: Final = 4096  # characters
_MARK: Final = re.compile(r'[",]')
_PAIR: Final = re.compile(r"""[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([!#$%&'*+.^_`|~0-9A-Za-z-]+|"[^"\\]*")[ \t]*)?(;|\Z)""")


def hops(scope: Scope, header: ForwardedHeader) -> Iterator[Address | None]:
    """Yield the addresses nearest proxy first; `None` for an entry that is not an IP address, and for a header over 4 KiB.

    Each proxy appends. Clients may have written everything to the left of what a trusted proxy appended, so the header is read from
    the right: nothing further left changes what has been read.
    """
    text = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == header.encode())
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

    A backslash makes it malformed. Read from the right, it is ambiguous which quotes it escapes, and no address needs one.
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
