"""Rules for `exempt_handler=`, to be combined: `Path("/health") | Network("10.0.0.0/8") & ~Method("POST")`.

`|` is or, `&` is and, `~` is not; each takes plain handlers too. Rules that ask the request alone cost no thread and no body.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import HTTPConnection, cookie_parser
from starlette.routing import compile_path
from starlette.types import Scope

from ._clients import Proxies, is_in, network_of
from ._handlers import call_handler
from .exceptions import ConfigurationError
from .types import ExemptHandler, ForwardedHeader

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

Check = Callable[[str], bool | Awaitable[bool]]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_HOST: Final = re.compile(r"(?:\*\.)?[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*|\[[0-9A-Fa-f:.]+\]")
_PATH: Final = re.compile(r"/.*", re.DOTALL)
_TEXT: Final = re.compile(r".+", re.DOTALL)
_PORT: Final = re.compile(r":[0-9]*\Z")
_BEARER: Final = re.compile(r"bearer +([0-9A-Za-z._~+/-]+=*)", re.IGNORECASE)  # RFC 6750, 2.1


class Rule(ABC):
    """Says whether a request passes although maintenance is on; what every rule here is."""

    @abstractmethod
    async def __call__(self, connection: HTTPConnection) -> bool: ...

    def __or__(self, other: ExemptHandler | Any) -> Rule:
        return _AnyOf(self, _as_rule(other)) if callable(other) else NotImplemented

    def __ror__(self, other: ExemptHandler | Any) -> Rule:
        return _AnyOf(_as_rule(other), self) if callable(other) else NotImplemented

    def __and__(self, other: ExemptHandler | Any) -> Rule:
        return _AllOf(self, _as_rule(other)) if callable(other) else NotImplemented

    def __rand__(self, other: ExemptHandler | Any) -> Rule:
        return _AllOf(_as_rule(other), self) if callable(other) else NotImplemented

    def __invert__(self) -> Rule:
        return _Not(self)


class ScopeRule(Rule):
    """One that needs nothing but the scope."""

    @abstractmethod
    def matches(self, scope: Scope) -> bool:
        """Whether it applies; without waiting for anything."""

    async def __call__(self, connection: HTTPConnection) -> bool:
        return self.matches(connection.scope)


class When(Rule):
    """What a handler of your own says, sync or async: `When(is_tester)`."""

    def __init__(self, handler: ExemptHandler) -> None:
        if not callable(handler):
            raise ConfigurationError(f"When takes something to call, not {handler!r}.")
        self._handler = handler

    async def __call__(self, connection: HTTPConnection) -> bool:
        return bool(await call_handler(self._handler, connection))

    def __repr__(self) -> str:
        return f"When({_name(self._handler)})"


# -- what is asked for -----------------------------------------------------------------------------------------------------------


class Path(ScopeRule):
    """These paths, exactly, or as templates: `Path("/health", "/users/{id:int}", methods=["GET"])`.

    They are as the application has them to which the middleware was added, without its `root_path`. A trailing slash is a
    difference. Without `methods`, every method and WebSockets.
    """

    def __init__(self, *paths: str, methods: Iterable[str] | None = None) -> None:
        self._paths = _some("Path", paths)
        self._methods = None if methods is None else Method(*([methods] if isinstance(methods, str) else methods))
        self._exact = frozenset(path for path in paths if _checked_path(path) and "{" not in path)
        self._templates = [_compiled(path) for path in paths if path not in self._exact]

    def matches(self, scope: Scope) -> bool:
        if self._methods is not None and not self._methods.matches(scope):
            return False
        path = _route_path(scope)
        # Not `match`: to the `$` of these patterns, a newline at the end is no difference.
        return path in self._exact or any(template.fullmatch(path) for template in self._templates)

    def __repr__(self) -> str:
        methods = "" if self._methods is None else f", methods={[*self._methods.methods]!r}"
        return f"Path({_listed(self._paths)}{methods})"


class Method(ScopeRule):
    """These methods: `Method("GET", "HEAD")`. A WebSocket has none."""

    def __init__(self, *methods: str) -> None:
        for method in _some("Method", methods):
            if not _reads(_TOKEN, method):
                raise ConfigurationError(f"{method!r} is no method: write it like GET or POST.")
        self.methods = tuple(method.upper() for method in methods)

    def matches(self, scope: Scope) -> bool:
        return scope.get("method") in self.methods

    def __repr__(self) -> str:
        return f"Method({_listed(self.methods)})"


class Host(ScopeRule):
    """These hosts, as the Host header names them, without a port: `Host("staging.example.com", "*.internal")`.

    Whoever reaches the server directly can write any host there.
    """

    def __init__(self, *hosts: str) -> None:
        for host in _some("Host", hosts):
            if not _reads(_HOST, host):
                raise ConfigurationError(f"{host!r} is no host: write it like example.com or *.example.com, without a port.")
        self._hosts = tuple(host.lower() for host in hosts)

    def matches(self, scope: Scope) -> bool:
        given = _header(scope, b"host")
        if given is None:
            return False
        name = _PORT.sub("", given.lower())
        return any(name.endswith(host[1:]) and name != host[1:] if host.startswith("*") else name == host for host in self._hosts)

    def __repr__(self) -> str:
        return f"Host({_listed(self._hosts)})"


# -- who asks --------------------------------------------------------------------------------------------------------------------


class Network(ScopeRule):
    """Clients of these networks or addresses: `Network("10.0.0.0/8", "2001:db8::/32", trusted_proxies=["192.0.2.7"])`.

    What counts is the address that the connection comes from. Where that is one of `trusted_proxies`, it is the last one in
    X-Forwarded-For that is none of theirs; with `forwarded="forwarded"`, in Forwarded (RFC 7239). The other header is not read.
    Nobody is exempt whose address is not known for sure: a header that cannot be read, a trusted proxy that names nobody, a Unix
    socket.
    """

    def __init__(self, *networks: str, trusted_proxies: str | Iterable[str] = (), forwarded: ForwardedHeader = "x-forwarded-for") -> None:
        self._networks = tuple(network_of(network) for network in _some("Network", networks))
        self._proxies = Proxies(trusted_proxies, forwarded)

    def matches(self, scope: Scope) -> bool:
        address = self._proxies.client_of(scope)
        return address is not None and is_in(address, self._networks)

    def __repr__(self) -> str:
        return f"Network({_listed(map(str, self._networks))}{self._proxies!r})"


class _Named(ScopeRule):
    """A name that stands in the request once, with one value if one is given."""

    def __init__(self, name: str, value: str | None = None) -> None:
        kind = type(self).__name__
        if not self._is_name(name):
            raise ConfigurationError(f"{name!r} is no name for a {kind}.")
        if value is not None and not _reads(_TEXT, value):
            raise ConfigurationError(f"The value of {kind}({name!r}, …) must be a text that is not empty.")
        self._name = name
        self._value = value

    def matches(self, scope: Scope) -> bool:
        values = self._values(scope)
        # Twice is not once more: proxies and applications differ in which of them they take.
        return len(values) == 1 and (self._value is None or _is_same(values[0], self._value))

    @staticmethod
    def _is_name(name: object) -> bool:
        return _reads(_TOKEN, name)

    @abstractmethod
    def _values(self, scope: Scope) -> Sequence[str]: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}{'' if self._value is None else ', …'})"  # the value may be a secret


class Header(_Named):
    """A header that is there once, with this value if one is given: `Header("X-Office-Key", "…")`. Values are compared in constant time."""

    def _values(self, scope: Scope) -> Sequence[str]:
        return _headers(scope, self._name.lower().encode())


class Cookie(_Named):
    """A cookie, with this value if one is given: `Cookie("beta", "yes")`. Values are compared in constant time."""

    def _values(self, scope: Scope) -> Sequence[str]:
        cookies = [cookie_parser(header) for header in _headers(scope, b"cookie")]
        return [found[self._name] for found in cookies if self._name in found]


class Query(_Named):
    """A query parameter that is there once, with this value if one is given: `Query("preview", "…")`. Compared in constant time.

    What stands in a URL stands in access logs.
    """

    @staticmethod
    def _is_name(name: object) -> bool:
        return _reads(_TEXT, name)

    def _values(self, scope: Scope) -> Sequence[str]:
        query: bytes = scope.get("query_string", b"")
        return [value for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if name == self._name]


class Bearer(Rule):
    """A bearer token (RFC 6750) of which a function of yours, sync or async, says that it is good: `Bearer(is_good)`."""

    def __init__(self, check: Check) -> None:
        if not callable(check):
            raise ConfigurationError(f"Bearer takes a function that is given the token, not {check!r}.")
        self._check = check

    async def __call__(self, connection: HTTPConnection) -> bool:
        match = _BEARER.fullmatch(_header(connection.scope, b"authorization") or "")
        return match is not None and bool(await call_handler(self._check, match[1]))

    def __repr__(self) -> str:
        return f"Bearer({_name(self._check)})"


class Role(Rule):
    """Who has one of these roles, of those that a function of yours, sync or async, knows: `Role("admin", of=roles_of)`.

    It is given the request. A middleware that finds out who asks must be added later than this one.
    """

    def __init__(self, *roles: str, of: Callable[[Any], Iterable[str] | Awaitable[Iterable[str]]]) -> None:
        if not callable(of):
            raise ConfigurationError(f"of= must be a function that is given the request and returns roles, not {of!r}.")
        self._roles = frozenset(_some("Role", roles))
        self._of = of

    async def __call__(self, connection: HTTPConnection) -> bool:
        return not self._roles.isdisjoint(await call_handler(self._of, connection) or ())

    def __repr__(self) -> str:
        return f"Role({_listed(sorted(self._roles))}, of={_name(self._of)})"


# -- combinations ----------------------------------------------------------------------------------------------------------------


class _AnyOf(Rule):
    def __init__(self, *rules: Rule) -> None:
        self._rules = rules

    async def __call__(self, connection: HTTPConnection) -> bool:
        for rule in self._rules:
            if await rule(connection):
                return True
        return False

    def __repr__(self) -> str:
        return " | ".join(map(repr, self._rules))


class _AllOf(Rule):
    def __init__(self, *rules: Rule) -> None:
        self._rules = rules

    async def __call__(self, connection: HTTPConnection) -> bool:
        for rule in self._rules:
            if not await rule(connection):
                return False
        return True

    def __repr__(self) -> str:
        return " & ".join(f"({rule!r})" if isinstance(rule, _AnyOf) else repr(rule) for rule in self._rules)


class _Not(Rule):
    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    async def __call__(self, connection: HTTPConnection) -> bool:
        return not await self._rule(connection)

    def __repr__(self) -> str:
        return f"~({self._rule!r})" if isinstance(self._rule, _AnyOf | _AllOf) else f"~{self._rule!r}"


def _as_rule(handler: ExemptHandler) -> Rule:
    return handler if isinstance(handler, Rule) else When(handler)


# -- reading options -------------------------------------------------------------------------------------------------------------


def _some(kind: str, given: tuple[str, ...]) -> tuple[str, ...]:
    if not given:
        raise ConfigurationError(f"{kind}() needs at least one to name.")
    return given


def _reads(pattern: re.Pattern[str], value: object) -> bool:
    """Whether it is text that the pattern describes."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _checked_path(path: str) -> str:
    if not _reads(_PATH, path):
        raise ConfigurationError(f"{path!r} is no path: it must begin with a slash.")
    return path


def _compiled(template: str) -> re.Pattern[str]:
    try:
        return compile_path(template)[0]
    except (AssertionError, ValueError) as error:  # no such convertor; a name twice
        raise ConfigurationError(f"{template!r} is no template of a path: {error}") from None


# -- reading requests ------------------------------------------------------------------------------------------------------------


def _route_path(scope: Scope) -> str:
    """The path as the application's own routes have it."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "").rstrip("/")
    return path[len(root_path) :] if f"{path}/".startswith(f"{root_path}/") else path


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _header(scope: Scope, name: bytes) -> str | None:
    """A header that is there once."""
    values = _headers(scope, name)
    return values[0] if len(values) == 1 else None


def _is_same(given: str, expected: str) -> bool:
    return compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _name(handler: object) -> str:
    return getattr(handler, "__qualname__", type(handler).__qualname__)


HEALTH: Final = Path("/health", "/healthz", "/livez", "/readyz", methods=("GET", "HEAD"))
"""Where load balancers and orchestrators usually ask. A 503 there takes the worker out of service, or restarts it."""
