"""For the tests of applications, and of backends of one's own: `override`, a fixture in `fixtures`, a suite in `conformance`."""

from __future__ import annotations

from .overriding import override

__all__ = ["override"]
