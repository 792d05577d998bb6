"""Exemptions: rules, trusted proxies, the allow list and bypass tokens."""

from __future__ import annotations

from .rules import (
    HEALTH,
    Bearer,
    Cookie,
    Header,
    Host,
    Method,
    Network,
    Path,
    Query,
    Role,
    Rule,
    ScopeRule,
    When,
)

__all__ = [
    "HEALTH",
    "Bearer",
    "Cookie",
    "Header",
    "Host",
    "Method",
    "Network",
    "Path",
    "Query",
    "Role",
    "Rule",
    "ScopeRule",
    "When",
]
