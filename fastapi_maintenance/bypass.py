"""Letting testers through while the switch is on: by a signed token in a header, or by a cookie that one visit of a link sets.

Needs the extra `bypass`. What makes a token good is that the secret signed it, that it has not run out, and that the switch names it:
so it ends with the value that the switch has, and whoever takes it out of there has revoked it on every worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from .exceptions import ConfigurationError
from .state import BypassRecord

__all__ = ["HEADER", "PARAMETER", "SECRET_VARIABLE", "Bypass", "link_to"]

SECRET_VARIABLE: Final = "FASTAPI_MAINTENANCE_SECRET"  # noqa: S105 - the name of the variable
HEADER: Final = "X-Maintenance-Bypass"
PARAMETER: Final = "maintenance_bypass"  # of the link, and the name of the cookie

_SHORTEST: Final = 32  # characters of a secret
_LONGEST: Final = 512  # characters of a token, so that nobody lets us sign a megabyte
_SALT: Final = "fastapi_maintenance.bypass"
_HEADER_NAME: Final = HEADER.lower().encode()
_PREFIX: Final = f"{PARAMETER}=".encode()
_IN_SEGMENT: Final = "%!$&'()*+,;=:@~"  # RFC 3986, 3.3; a percent sign stands in what is encoded already
_IN_QUERY: Final = _IN_SEGMENT + "/?"


class Bypass:
    """Signs tokens and knows them again: `MaintenanceModeMiddleware(…, bypass=Bypass())`.

    The secret is that of the environment variable `FASTAPI_MAINTENANCE_SECRET` unless one is given; it has at least 32 characters
    and is the same for every worker and for the command line. Of several, in the variable separated by spaces, the first signs and all
    are believed, so that one can follow another: `Bypass([new, old])`. `domain`, `path` and `secure` are attributes of the cookie, which is
    HttpOnly and SameSite=Lax in any case. Raises `ConfigurationError`.
    """

    def __init__(
        self, secret: str | Sequence[str] | None = None, *, domain: str | None = None, path: str = "/", secure: bool = True
    ) -> None:
        self._signer = _signer(_checked(secret))
        self._cookie: dict[str, Any] = {"domain": domain, "path": path, "secure": secure}

    def issue(self, until: datetime, note: str | None = None) -> tuple[str, BypassRecord]:
        """A new token, and what the switch is to say of it."""
        # The random part makes two tokens with one end different ones.
        token = self._signer.dumps([int(until.timestamp()), token_urlsafe(9)])
        return token, BypassRecord(id=_id_of(token), until=datetime.fromtimestamp(int(until.timestamp()), UTC), note=note)

    def admits(self, scope: Scope, records: Sequence[BypassRecord], now: datetime) -> bool:
        """Whether a request has a good token in its header or cookie."""
        return any(self._expiry(token, records, now) is not None for token in _tokens(scope))

    def welcome(self, scope: Scope, records: Sequence[BypassRecord], now: datetime) -> Response | None:
        """The answer to a visit of the link: sets the cookie and goes on to the URL without the token. None where it is no such visit.

        Takes the token out of the scope, good or not: from there servers write their access logs.
        """
        if _PREFIX not in scope["query_string"]:
            return None
        fields = scope["query_string"].split(b"&")
        given = [field[len(_PREFIX) :].decode("latin-1") for field in fields if field.startswith(_PREFIX)]
        scope["query_string"] = rest = b"&".join(field for field in fields if not field.startswith(_PREFIX))
        if scope.get("method") not in ("GET", "HEAD") or len(given) != 1:
            return None
        expiry = self._expiry(given[0], records, now)
        if expiry is None:
            return None
        response = Response(
            status_code=303,
            headers={"Location": _here(scope, rest), "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )
        left = max(1, int(expiry - now.timestamp()))
        response.set_cookie(PARAMETER, given[0], max_age=left, httponly=True, samesite="lax", **self._cookie)
        return response

    def _expiry(self, token: str, records: Sequence[BypassRecord], now: datetime) -> int | None:
        """When a good token runs out, in seconds since the epoch; None for one that is not good."""
        from itsdangerous import BadData

        if len(token) > _LONGEST:
            return None
        try:
            expiry, _ = self._signer.loads(token)  # compares in constant time, before it reads anything else
        except BadData:
            return None
        known = _id_of(token)
        return expiry if now.timestamp() < expiry and any(record.id == known for record in records) else None


def link_to(url: str, token: str) -> str:
    """A URL with a token, for one visit."""
    base, hash_sign, fragment = url.partition("#")
    return f"{base}{'&' if '?' in base else '?'}{PARAMETER}={token}{hash_sign}{fragment}"


def _checked(given: Any) -> list[str]:
    if given is None:
        secrets: Any = os.environ.get(SECRET_VARIABLE, "").split()
        where = f"the environment variable {SECRET_VARIABLE}"
    else:
        secrets = [given] if isinstance(given, str) else given
        where = "secret="
    how = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
    if not isinstance(secrets, Sequence) or not secrets or not all(isinstance(secret, str) and secret for secret in secrets):
        raise ConfigurationError(f"A bypass needs a secret in {where}, the same for every worker and for the command line; {how}")
    if (shortest := min(map(len, secrets))) < _SHORTEST:
        raise ConfigurationError(f"A secret in {where} has {shortest} characters; {_SHORTEST} are the fewest it may have; {how}")
    return list(secrets)


def _signer(secrets: list[str]) -> Any:
    try:
        from itsdangerous import URLSafeSerializer
    except ImportError as error:
        raise ConfigurationError("A bypass needs itsdangerous: pip install 'fastapi-maintenance-cluster[bypass]'.") from error
    # With the bytes that os.environ may have; and the one that signs comes last here.
    keys = [secret.encode("utf-8", "surrogatepass") for secret in reversed(secrets)]
    return URLSafeSerializer(keys, salt=_SALT, signer_kwargs={"key_derivation": "hmac", "digest_method": sha256})


def _id_of(token: str) -> str:
    """What may be known of a token by everybody: nobody finds the token by it."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _tokens(scope: Scope) -> Iterator[str]:
    for name, value in scope["headers"]:
        if name == _HEADER_NAME:
            yield value.decode("latin-1")
        elif name == b"cookie" and _PREFIX in value:
            yield cookie_parser(value.decode("latin-1")).get(PARAMETER, "")


def _here(scope: Scope, query: bytes) -> str:
    """The same URL with another query, as a relative reference: right behind any proxy, and never to another host."""
    path: bytes = scope.get("raw_path") or quote(scope["path"], errors="replace").encode()
    segment = path.partition(b"?")[0].rpartition(b"/")[2]
    return f"./{quote(segment, _IN_SEGMENT)}{'?' if query else ''}{quote(query, _IN_QUERY)}"
