"""Backends from URLs, and the default backend of the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from .._internal.validation import require
from ..exceptions import ConfigurationError
from .base import BaseStateBackend
from .env import EnvVarBackend

_EXAMPLES: Final = (
    "redis://localhost:6379/0?key=maintenance, rediss://…, "
    "redis+sentinel://one,two,three/mymaster/0, redis+cluster://one,two,three, "
    "unix:///run/redis.sock, file:maintenance.json or env:FASTAPI_MAINTENANCE_MODE; "
    "valkey:// means the same as redis://"
)
_SERVERS: Final = ("redis", "rediss", "valkey", "valkeys", "unix")
_CLASSES: Final = {
    "env": (".env", "EnvVarBackend"),
    "file": (".file.backend", "LocalFileBackend"),
    "redis": (".redis", "RedisBackend"),
}


def backend_from_url(url: str) -> BaseStateBackend:
    """Return the backend that a URL names.

    These are valid: `redis://user:password@host:6379/0?key=maintenance&ttl=1`, `rediss://…`,
    `unix:///path/to.sock?db=0`, `redis+sentinel://one:26379,two,three/mymaster/0`,
    `redis+cluster://one:6379,two,three`, `file:relative.json`, `file:///absolute.json?ttl=1`,
    `env:NAME`. `valkey` and `valkeys` mean the same as `redis` and `rediss`. Raises
    `ConfigurationError` for anything else.
    """
    scheme, colon, rest = url.partition(":")
    if not colon and scheme.partition("+")[0] in (*_SERVERS, "file"):
        raise ConfigurationError(
            f"{scheme!r} alone does not say where; write a URL like {_EXAMPLES}."
        )
    if scheme.partition("+")[0] in _SERVERS:
        return _make("redis", url)
    if scheme == "file":
        return _file(url)
    if scheme == "env":
        return EnvVarBackend(rest or None)
    # Without "//" the scheme may be missing, and this may be a password.
    start = "so" if "@" in url and not rest.startswith("//") else f"with {scheme!r}"
    raise ConfigurationError(f"A backend URL cannot start {start}; write one like {_EXAMPLES}.")


def backend_of_kind(kind: str, **options: Any) -> BaseStateBackend:
    """Return a backend of a kind (`env`, `file` or `redis`), with the options of its class."""
    if kind not in _CLASSES:
        raise ConfigurationError(
            f"backend must be env, file, redis or a URL like {_EXAMPLES}, got {kind!r}."
        )
    try:
        return _make(kind, **options)
    except TypeError as error:
        raise ConfigurationError(
            f"The {kind} backend cannot take these options: {error}."
        ) from None


def _make(kind: str, *args: Any, **options: Any) -> BaseStateBackend:
    # The class is imported when it is needed, with its library: anyio or redis-py.
    module, name = _CLASSES[kind]
    make: Callable[..., BaseStateBackend] = getattr(import_module(module, __package__), name)
    return make(*args, **options)


def _file(url: str) -> BaseStateBackend:
    shown = "The URL" if "@" in url else repr(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        reason = "" if "@" in url else f": {error}"
        raise ConfigurationError(f"{shown} cannot be read as one of a file{reason}.") from None
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigurationError(
            f"{shown} names no local file; write file:maintenance.json "
            "or file:///var/lib/app/maintenance.json."
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    ttl = options.pop("ttl", BaseStateBackend.ttl)
    if options:
        raise ConfigurationError(
            f"A file URL has no option {', '.join(sorted(options))}; it knows ttl."
        )
    try:
        return _make("file", unquote(parts.path), ttl=float(ttl))
    except ValueError as error:
        raise ConfigurationError(f"In {shown}: {error}") from None


BACKEND_VARIABLE: Final = "FASTAPI_MAINTENANCE_BACKEND"


class _Default:
    """The process-wide default backend: the only module-level state."""

    configured: BaseStateBackend | None = None
    from_variable: tuple[str, BaseStateBackend] | None = None


def configure_backend(backend: str | BaseStateBackend, **options: Any) -> None:
    """Set the default backend: `env`, `file` or `redis` with options, a URL, or an instance.

    The environment variable `FASTAPI_MAINTENANCE_BACKEND` overrides it.
    Raises `ConfigurationError` for invalid options.
    """
    if isinstance(backend, BaseStateBackend):
        if options:
            raise ConfigurationError(
                "Options belong to the backend's own constructor when an instance is given."
            )
        _Default.configured = backend
        return
    requirement = "backend must be a kind (env, file or redis), a URL or a backend"
    require(isinstance(backend, str), requirement, backend)
    if options and ":" in backend:
        raise ConfigurationError("Options belong into the URL's query when a URL is given.")
    make = backend_from_url if ":" in backend else backend_of_kind
    _Default.configured = make(backend, **options)


def backend_or_default(backend: str | BaseStateBackend | None = None) -> BaseStateBackend:
    """Return the given backend, or the default.

    The default is the one of the environment variable, then the configured one, then `env`.
    """
    if isinstance(backend, BaseStateBackend):
        return backend
    if isinstance(backend, str):
        return backend_from_url(backend)
    require(backend is None, "backend must be a backend or its URL", backend)
    if url := os.environ.get(BACKEND_VARIABLE):
        if _Default.from_variable is None or _Default.from_variable[0] != url:
            _Default.from_variable = (url, backend_from_url(url))
        return _Default.from_variable[1]
    if _Default.configured is None:
        _Default.configured = EnvVarBackend()
    return _Default.configured
