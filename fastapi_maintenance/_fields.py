"""The fields of log records, for formatters that write JSON. Their names stay."""

from __future__ import annotations

__all__ = ["fields"]


def fields(event: str, **details: object) -> dict[str, object]:
    """What to give a logger as `extra`: the event, and details of it, as docs/metrics.md lists them."""
    return {"maintenance_event": event, **{f"maintenance_{name}": detail for name, detail in details.items()}}
