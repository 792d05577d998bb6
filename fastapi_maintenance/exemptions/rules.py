"""Rules for `exempt_handler=`.

They combine: `exempt.Path("/health") | exempt.Network("10.0.0.0/8") & ~exempt.Method("POST")`.
`|` is or, `&` is and, `~` is not; each accepts plain handlers too. Rules that read only the request
need no thread and no body.

A rule answers yes, no or unknown (`None`). Unknown stays unknown under `~`, and exempts no request.
So `~Path("/checkout")` exempts neither `/checkout` nor another spelling of it that a router might
accept.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette._utils import get_route_path
from starlette.requests import HTTPConnection, Request, cookie_parser
from starlette.routing import compile_path
from starlette.types import Scope

from .._internal.callables import call_handler
from .._internal.validation import TOKEN, is_text, require
from ..exceptions import ConfigurationError
from .proxies import ForwardedHeader, Proxies, is_in, network_of

ExemptHandler = (
    Callable[[Request], bool | Awaitable[bool]] | Callable[[HTTPConnection], bool | Awaitable[bool]]
)
"""Decides whether a request passes during maintenance. Sync handlers run in own threads.

The argument is a `Request`; for a WebSocket, an `HTTPConnection`, which has no method and no body.
A handler that asks that for what only a `Request` has, refuses the WebSocket.
"""

Check = Callable[[str], bool | Awaitable[bool]]
Roles = Iterable[str] | None
_HOST: Final = re.compile(r"(?:\*\.)?[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*|\[[0-9A-Fa-f:.]+\]")
_PATH: Final = re.compile(r"/.*", re.DOTALL)
_TEXT: Final = re.compile(r".+", re.DOTALL)
_PORT: Final = re.compile(r":[0-9]*\Z")
_BEARER: Final = re.compile(r"bearer +([0-9A-Za-z._~+/-]+=*)", re.IGNORECASE)  # RFC 6750, 2.1


class Rule(ABC):
    """A condition under which a request passes during maintenance."""

    _arguments = ""  # for `repr`

    @abstractmethod
    async def applies(self, connection: HTTPConnection) -> bool | None:
        """Return whether the rule applies to a request; `None` if that is unknown."""

    async def __call__(self, connection: HTTPConnection) -> bool:
        """Return whether a request is exempt. An unknown answer exempts no request."""
        return await self.applies(connection) is True

    def __or__(self, other: ExemptHandler | Any) -> Rule:
        return _combined(True, self, other)

    def __ror__(self, other: ExemptHandler | Any) -> Rule:
        return _combined(True, other, self)

    def __and__(self, other: ExemptHandler | Any) -> Rule:
        return _combined(False, self, other)

    def __rand__(self, other: ExemptHandler | Any) -> Rule:
        return _combined(False, other, self)

    def __invert__(self) -> Rule:
        return _Not(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._arguments})"


class ScopeRule(Rule):
    """A rule that reads nothing but the ASGI scope."""

    @abstractmethod
    def matches(self, scope: Scope) -> bool | None:
        """Return what `applies` does, without waiting."""

    async def applies(self, connection: HTTPConnection) -> bool | None:
        return self.matches(connection.scope)


class When(Rule):
    """A custom handler, sync or async, as a rule: `When(is_tester)`."""

    def __init__(self, handler: ExemptHandler) -> None:
        require(callable(handler), "The handler of When must be callable", handler)
        self._handler, self._arguments = handler, _name(handler)

    async def applies(self, connection: HTTPConnection) -> bool | None:
        """Return the truth of the handler's result, and of a rule its own answer."""
        if isinstance(self._handler, Rule):
            return await self._handler.applies(connection)
        return bool(await call_handler(self._handler, connection))


# -- rules about the request -----------------------------------------------------------------------
class Path(ScopeRule):
    """These paths, exactly, or as templates: `Path("/health", "/users/{id:int}", methods=["GET"])`.

    They are paths as the routes of the application have them, without its `root_path`. A trailing
    slash is a difference. Without `methods`, the rule is for every method and for WebSockets. A
    path that only Starlette's routers take for one of these, because a newline follows it, is
    unknown.
    """

    def __init__(self, *paths: str, methods: Iterable[str] | None = None) -> None:
        for path in _some("Path", paths):
            require(is_text(path, _PATH), "A path must begin with a slash", path)
        named = [methods] if isinstance(methods, str) else methods
        self._methods = None if named is None else Method(*named)
        shown = "" if self._methods is None else f", methods={[*self._methods.methods]!r}"
        self._arguments = _listed(paths) + shown
        self._exact = frozenset(path for path in paths if "{" not in path)
        self._templates = [_compiled(path) for path in paths if path not in self._exact]

    def matches(self, scope: Scope) -> bool | None:
        path = self._matches_path(get_route_path(scope))
        method = self._methods is None or self._methods.matches(scope)
        return False if False in (path, method) else (path and method) or None

    def _matches_path(self, path: str) -> bool | None:
        if path in self._exact or any(template.fullmatch(path) for template in self._templates):
            return True
        # The patterns of routes end with `$`, which a newline at the end of the path may follow.
        loose = any(template.match(path) for template in self._templates)
        return None if loose or path.removesuffix("\n") in self._exact else False


class Method(ScopeRule):
    """These methods: `Method("GET", "HEAD")`. A WebSocket has none.

    Other cases are unknown, as endpoint classes accept them, and so is HEAD if only GET is named,
    as Starlette's routes accept it.
    """

    def __init__(self, *methods: str) -> None:
        for method in _some("Method", methods):
            require(is_text(method, TOKEN), "A method must be like GET or POST", method)
        self.methods = tuple(method.upper() for method in methods)
        self._arguments = _listed(self.methods)

    def matches(self, scope: Scope) -> bool | None:
        method = scope.get("method")
        if method is None or method in self.methods:
            return method is not None
        others = {method.upper(), "GET" if method.upper() == "HEAD" else ""}
        return False if others.isdisjoint(self.methods) else None


class Host(ScopeRule):
    """These hosts of the Host header, without a port: `Host("staging.example.com", "*.internal")`.

    Clients that reach the server directly can send any host. A missing, repeated or malformed
    header is unknown.
    """

    def __init__(self, *hosts: str) -> None:
        for host in _some("Host", hosts):
            requirement = "A host must be like example.com or *.example.com, without a port"
            require(is_text(host, _HOST), requirement, host)
        self._hosts = tuple(host.lower() for host in hosts)
        self._endings = tuple(host[1:] for host in self._hosts if host.startswith("*"))
        self._arguments = _listed(self._hosts)

    def matches(self, scope: Scope) -> bool | None:
        given = _headers(scope, b"host")
        name = _PORT.sub("", given[0].lower()) if len(given) == 1 else ""
        if not is_text(name, _HOST):
            return None
        return name in self._hosts or name.endswith(self._endings)


# -- rules about the client ------------------------------------------------------------------------
class Network(ScopeRule):
    """Clients of these networks: `Network("10.0.0.0/8", trusted_proxies=["192.0.2.7"])`.

    The client is the peer of the connection. If that is one of `trusted_proxies`, the client is the
    last address in X-Forwarded-For that is none of them; with `forwarded="forwarded"`, in Forwarded
    (RFC 7239). The other header is not read. The client is unknown if that header is malformed or
    over 4 KiB, names more than 32 proxies or no client, and on a Unix socket.
    """

    def __init__(
        self,
        *networks: str,
        trusted_proxies: str | Iterable[str] = (),
        forwarded: ForwardedHeader = "x-forwarded-for",
    ) -> None:
        self._networks = tuple(network_of(network) for network in _some("Network", networks))
        self._proxies = Proxies(trusted_proxies, forwarded)
        self._arguments = _listed(map(str, self._networks)) + repr(self._proxies)

    def matches(self, scope: Scope) -> bool | None:
        address = self._proxies.client_of(scope)
        return None if address is None else is_in(address, self._networks)


class _Named(ScopeRule):
    """A name that the request has, with the value if given. More than one is unknown."""

    _names = TOKEN

    def __init__(self, name: str, value: str | None = None) -> None:
        kind = type(self).__name__
        require(is_text(name, self._names), f"The name of a {kind} must be a token", name)
        if value is not None and not is_text(value, _TEXT):  # not quoted, as it may be a secret
            raise ConfigurationError(f"The value of {kind}({name!r}, …) must be non-empty text.")
        self._name, self._value = name, value
        self._arguments = repr(name) if value is None else f"{name!r}, …"  # it may be a secret

    def matches(self, scope: Scope) -> bool | None:
        values = self._values(scope)
        if len(values) > 1:  # proxies and applications differ in which of them they take
            return None
        return bool(values) and (self._value is None or _is_same(values[0], self._value))

    @abstractmethod
    def _values(self, scope: Scope) -> Sequence[str]: ...


class Header(_Named):
    """A header, with this value if given: `Header("X-Key", "…")`. Compared in constant time."""

    def _values(self, scope: Scope) -> Sequence[str]:
        return _headers(scope, self._name.lower().encode())


class Cookie(_Named):
    """A cookie, with this value if given: `Cookie("beta", "yes")`. Compared in constant time."""

    def _values(self, scope: Scope) -> Sequence[str]:
        cookies = [cookie_parser(header) for header in _headers(scope, b"cookie")]
        return [found[self._name] for found in cookies if self._name in found]


class Query(_Named):
    """A query parameter, with this value if given: `Query("preview", "…")`.

    It is compared in constant time. Access logs contain it.
    """

    _names = _TEXT

    def _values(self, scope: Scope) -> Sequence[str]:
        query: bytes = scope.get("query_string", b"")
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        return [value for name, value in pairs if name == self._name]


class Bearer(Rule):
    """A bearer token (RFC 6750) that a function, sync or async, accepts: `Bearer(is_valid)`."""

    def __init__(self, check: Check) -> None:
        require(callable(check), "The check of Bearer must be a function of the token", check)
        self._check, self._arguments = check, _name(check)

    async def applies(self, connection: HTTPConnection) -> bool | None:
        """Return whether the token is accepted; unknown for more than one."""
        given = _headers(connection.scope, b"authorization")
        if len(given) > 1:
            return None
        match = _BEARER.fullmatch("".join(given))
        return match is not None and bool(await call_handler(self._check, match[1]))


class Role(Rule):
    """A client with one of these roles: `Role("admin", of=roles_of)`.

    The function, sync or async, returns the roles. It receives the connection. A middleware that
    authenticates must be added after this one.
    """

    def __init__(self, *roles: str, of: Callable[[Any], Roles | Awaitable[Roles]]) -> None:
        require(callable(of), "of must be a function of the request that returns roles", of)
        self._roles, self._of = frozenset(_some("Role", roles)), of
        self._arguments = f"{_listed(sorted(self._roles))}, of={_name(of)}"

    async def applies(self, connection: HTTPConnection) -> bool | None:
        """Return whether the client has one of the roles; unknown if they are `None`."""
        roles = await call_handler(self._of, connection)
        return None if roles is None else not self._roles.isdisjoint(roles)


# -- combinations ----------------------------------------------------------------------------------
class _Combination(Rule):
    """Rules of which one decisive answer is enough: yes for `|`, no for `&`."""

    def __init__(self, decisive: bool, *rules: Rule) -> None:
        self.decisive = decisive
        self._rules = rules

    async def applies(self, connection: HTTPConnection) -> bool | None:
        """Return the decisive answer if a rule gives it; else unknown if one is, else the other."""
        result: bool | None = not self.decisive
        for rule in self._rules:
            answer = await rule.applies(connection)
            if answer is self.decisive:
                return answer
            result = None if answer is None else result
        return result

    def __repr__(self) -> str:
        if self.decisive:
            return " | ".join(map(repr, self._rules))
        return " & ".join(
            f"({rule!r})" if isinstance(rule, _Combination) and rule.decisive else repr(rule)
            for rule in self._rules
        )


class _Not(Rule):
    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    async def applies(self, connection: HTTPConnection) -> bool | None:
        answer = await self._rule.applies(connection)
        return None if answer is None else not answer

    def __repr__(self) -> str:
        return f"~({self._rule!r})" if isinstance(self._rule, _Combination) else f"~{self._rule!r}"


def _combined(decisive: bool, *handlers: Any) -> Rule:
    if not all(map(callable, handlers)):
        unsupported: Rule = NotImplemented
        return unsupported
    rules = (each if isinstance(each, Rule) else When(each) for each in handlers)
    return _Combination(decisive, *rules)


# -- reading options -------------------------------------------------------------------------------
def _some(kind: str, given: tuple[str, ...]) -> tuple[str, ...]:
    if not given:
        raise ConfigurationError(f"{kind} must have at least one argument, got none.")
    return given


def _compiled(template: str) -> re.Pattern[str]:
    try:
        return compile_path(template)[0]
    except (AssertionError, ValueError) as error:  # no such convertor; a name twice
        raise ConfigurationError(
            f"A path template must be valid for Starlette, got {template!r}: {error}"
        ) from None


# -- reading requests ------------------------------------------------------------------------------
def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _is_same(given: str, expected: str) -> bool:
    return compare_digest(*(text.encode("utf-8", "surrogatepass") for text in (given, expected)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _name(handler: object) -> str:
    return getattr(handler, "__qualname__", type(handler).__qualname__)


HEALTH: Final = Path("/health", "/healthz", "/livez", "/readyz", methods=("GET", "HEAD"))
"""The usual paths of health checks. A 503 there takes the worker out of service, or restarts it."""
