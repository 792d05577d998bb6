"""Which address a request comes from, also behind proxies, as far as that is known for sure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.types import Scope

from .exceptions import ConfigurationError

__all__ = ["Address", "AddressRange", "client_of", "is_in", "network_of", "proxies_of"]

Address = IPv4Address | IPv6Address
AddressRange = IPv4Network | IPv6Network

_FORWARDED: Final = b"x-forwarded-for"
_PORT: Final = re.compile(r":[0-9]*\Z")


def client_of(scope: Scope, proxies: Sequence[AddressRange]) -> Address | None:
    """Who asks, as far as that is known for sure."""
    client = scope.get("client")
    address = _address(str(client[0])) if client else None
    if address is None or not is_in(address, proxies):
        return address
    # Each proxy appends whom it heard from. Read from the right, up to the first one that nobody trusts: what stands left of
    # that may have been written by anybody.
    address = None
    for hop in reversed(_forwarded(scope).split(",")):
        address = _hop(hop)
        if address is None or not is_in(address, proxies):
            return address
    return address


def is_in(address: Address, networks: Iterable[AddressRange]) -> bool:
    """Whether one of them has the address."""
    return any(address in network for network in networks)


def network_of(text: object) -> AddressRange:
    """A network or one address, as options name it. Raises `ConfigurationError`."""
    try:
        if not isinstance(text, str) or not text:  # a number would be read as an address
            raise ValueError("write it as text")
        network = ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no network: write it like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32 ({error}).") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and (mapped := network.network_address.ipv4_mapped) is not None:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def proxies_of(trusted: str | Iterable[str]) -> tuple[str, ...]:
    """Networks of proxies, as options name them: one or several. Raises `ConfigurationError`."""
    if not isinstance(trusted, Iterable):
        raise ConfigurationError(f"trusted_proxies must be a list of networks, not {trusted!r}.")
    proxies = (trusted,) if isinstance(trusted, str) else tuple(trusted)
    for proxy in proxies:
        network_of(proxy)
    return proxies


def _forwarded(scope: Scope) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == _FORWARDED)


def _hop(text: str) -> Address | None:
    """An address as proxies write it, some of them with its port."""
    text = text.strip(" \t")
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]")
        return _address(inner) if bracket and _PORT.sub("", port) == "" else None
    return _address(_PORT.sub("", text) if text.count(":") == 1 else text)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # An IPv4 client of a server that listens on IPv6.
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
