"""The client address of a request behind trusted proxies."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, get_args

from starlette.types import Scope

from ._forwarded import Address, address_of, hops
from .exceptions import ConfigurationError
from .types import ForwardedHeader

__all__ = ["Address", "AddressRange", "Proxies", "is_in", "network_of"]

AddressRange = IPv4Network | IPv6Network

_MAX_PROXIES: Final = 32


class Proxies:
    """The trusted proxies and the header in which they report the client address. Raises `ConfigurationError` for invalid options."""

    def __init__(self, trusted: str | Iterable[str] = (), forwarded: ForwardedHeader = "x-forwarded-for") -> None:
        if not isinstance(trusted, Iterable):
            raise ConfigurationError(f"trusted_proxies must be a list of networks, got {trusted!r}.")
        if forwarded not in get_args(ForwardedHeader):
            raise ConfigurationError(f"forwarded must be one of {', '.join(get_args(ForwardedHeader))}, got {forwarded!r}.")
        self.trusted = (trusted,) if isinstance(trusted, str) else tuple(trusted)
        self.forwarded = forwarded
        self._networks = tuple(map(network_of, self.trusted))
        if forwarded != "x-forwarded-for" and not self._networks:
            raise ConfigurationError(f"trusted_proxies must name the proxies that write the header with forwarded={forwarded!r}, got none.")

    def client_of(self, scope: Scope) -> Address | None:
        """Return the address of the client; `None` if it cannot be determined."""
        client = scope.get("client")
        address = address_of(str(client[0])) if client else None
        if address is None or not is_in(address, self._networks):
            return address
        # The first address that is no trusted proxy; in a chain of trusted proxies alone, the first of them.
        for number, address in enumerate(hops(scope, self.forwarded)):
            if address is None or not is_in(address, self._networks):
                return address
            if number == _MAX_PROXIES:
                return None
        return address

    def __repr__(self) -> str:
        networks = f", trusted_proxies={[*map(str, self._networks)]!r}" if self._networks else ""
        return networks + (f", forwarded={self.forwarded!r}" if self.forwarded != "x-forwarded-for" else "")


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
        raise ConfigurationError(f"A network must be like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32, got {text!r} ({error}).") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and (mapped := network.network_address.ipv4_mapped) is not None:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network
