"""For whom proxies say that they ask: X-Forwarded-For, and Forwarded (RFC 7239)."""

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
    """The address that a text is, as IPv4 where it is that of an IPv4 client of a server that listens on IPv6."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _node(text: str) -> Address | None:
    """An address as proxies write it, some of them with its port."""
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]")
        return address_of(inner) if bracket and _PORT.sub("", port) == "" else None
    return address_of(_PORT.sub("", text) if text.count(":") == 1 else text)


def _elements(text: str) -> Iterator[str]:
    """The elements of Forwarded from the right. A comma between two quotes divides nothing."""
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
    """The one `for` of an element; empty where there is none or several, or where it is no element.

    A backslash makes it none: to a reader from the right it is not clear which quotes it escapes, and no address needs one.
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
