"""The names of the Redis keys and the channel, all in one Cluster slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ...exceptions import ConfigurationError


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of all keys.

    Companions share the switch's hash tag (Redis Cluster specification, "Hash tags").
    """

    switch: str
    holds: str
    workers: str
    epoch: str
    events: str
    told: str
    history: str
    recorded: str
    registry: str

    @classmethod
    def of(cls, switch: str) -> Self:
        """Name the companions of a switch.

        Raises `ConfigurationError` where they would land in another slot.
        """
        base = _tagged(switch)
        names = "holds workers epoch events told history recorded registry"
        return cls(switch, *(f"{base}:{name}" for name in names.split()))

    def component(self, name: str) -> str:
        """Return the key of the switch of a component."""
        return f"{self.switch}:{name}"

    def report(self, worker: str) -> str:
        """Return the key of the last report of a worker."""
        return f"{self.registry.removesuffix('registry')}w:{worker}"

    @property
    def components_share_slot(self) -> bool:
        """Return whether the switches of components share the slot, by a hash tag in the key."""
        return self.holds.startswith(f"{self.switch}:")

    @property
    def all(self) -> tuple[str, ...]:
        """The keys that scripts are given, in their order."""
        registry = self.registry, self.epoch, self.history, self.recorded, self.workers
        return (self.switch, self.holds, *registry)


def _tagged(key: str) -> str:
    if not key:
        raise ConfigurationError("key must not be empty.")
    before, brace, after = key.partition("{")
    tag, closing, _ = after.partition("}")
    if brace and closing and tag:
        return key
    if brace or "}" in before:
        raise ConfigurationError(
            f"key={key!r} has a brace but no hash tag; write it without braces or with one, "
            f"as in shop:{{eu}}:maintenance."
        )
    return f"{{{key}}}"
