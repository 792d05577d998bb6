"""Bypass tokens for testers, in a header or a cookie. Needs the extra `bypass`.

A token is valid while its signature matches, it has not expired, and the switch lists it. Replacing
the value of the switch therefore revokes every token on every worker.
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

from ..exceptions import ConfigurationError
from ..model.state import BypassRecord

__all__ = ["HEADER", "PARAMETER", "SECRET_VARIABLE", "Bypass", "link_to"]

SECRET_VARIABLE: Final = "FASTAPI_MAINTENANCE_SECRET"  # noqa: S105 - the name of the variable
HEADER: Final = "X-Maintenance-Bypass"
PARAMETER: Final = "maintenance_bypass"  # of the link, and the name of the cookie

_SHORTEST: Final = 32  # characters of a secret
_LONGEST: Final = 512  # characters of a token; longer ones are not verified
_SALT: Final = "fastapi_maintenance.exemptions.bypass"
_HEADER_NAME: Final = HEADER.lower().encode()
_PREFIX: Final = f"{PARAMETER}=".encode()
_IN_SEGMENT: Final = (
    "%!$&'()*+,;=:@~"  # RFC 3986, 3.3; a percent sign stands in what is encoded already
)
_IN_QUERY: Final = _IN_SEGMENT + "/?"


class Bypass:
    """Signs and verifies tokens: `MaintenanceModeMiddleware(…, bypass=Bypass())`.

    `secret` defaults to the environment variable `FASTAPI_MAINTENANCE_SECRET`. It has at least 32
    characters, and every worker and the command line share it. To rotate it, configure both:
    `Bypass([new, old])`, or both in the variable, separated by a space. The first one signs, and
    all of them verify. `domain`, `path` and `secure` are attributes of the cookie, which is always
    HttpOnly and SameSite=Lax. Raises `ConfigurationError`.
    """

    def __init__(
        self,
        secret: str | Sequence[str] | None = None,
        *,
        domain: str | None = None,
        path: str = "/",
        secure: bool = True,
    ) -> None:
        self._signer = _signer(_checked(secret))
        self._cookie: dict[str, Any] = {"domain": domain, "path": path, "secure": secure}

    def issue(self, until: datetime, note: str | None = None) -> tuple[str, BypassRecord]:
        """Issue a token. Returns the token and its record for the switch."""
        # The random part makes tokens with the same end different.
        token = self._signer.dumps([int(until.timestamp()), token_urlsafe(9)])
        return token, BypassRecord(
            id=_id_of(token), until=datetime.fromtimestamp(int(until.timestamp()), UTC), note=note
        )

    def admits(self, scope: Scope, records: Sequence[BypassRecord], now: datetime) -> bool:
        """Return whether a request has a valid token in its header or cookie."""
        return any(self._expiry(token, records, now) is not None for token in _tokens(scope))

    def welcome(
        self, scope: Scope, records: Sequence[BypassRecord], now: datetime
    ) -> Response | None:
        """Return the response to a visit of the link: the cookie, and a redirect without the token.

        Returns `None` for other requests. Removes the token from the scope, valid or not, as
        servers log the query string.
        """
        if _PREFIX not in scope["query_string"]:
            return None
        fields = scope["query_string"].split(b"&")
        given = [
            field[len(_PREFIX) :].decode("latin-1") for field in fields if field.startswith(_PREFIX)
        ]
        scope["query_string"] = rest = b"&".join(
            field for field in fields if not field.startswith(_PREFIX)
        )
        if scope.get("method") not in ("GET", "HEAD") or len(given) != 1:
            return None
        expiry = self._expiry(given[0], records, now)
        if expiry is None:
            return None
        response = Response(
            status_code=303,
            headers={
                "Location": _here(scope, rest),
                "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer",
            },
        )
        left = max(1, int(expiry - now.timestamp()))
        response.set_cookie(
            PARAMETER, given[0], max_age=left, httponly=True, samesite="lax", **self._cookie
        )
        return response

    def _expiry(self, token: str, records: Sequence[BypassRecord], now: datetime) -> int | None:
        """Return when a token expires, in seconds since the epoch; `None` if it is invalid."""
        from itsdangerous import BadData

        if len(token) > _LONGEST:
            return None
        try:
            expiry, _ = self._signer.loads(token)  # compares in constant time before it parses
        except BadData:
            return None
        known = _id_of(token)
        return (
            expiry
            if now.timestamp() < expiry and any(record.id == known for record in records)
            else None
        )


def link_to(url: str, token: str) -> str:
    """Add a token to a URL."""
    base, hash_sign, fragment = url.partition("#")
    return f"{base}{'&' if '?' in base else '?'}{PARAMETER}={token}{hash_sign}{fragment}"


def _checked(given: Any) -> list[str]:
    if given is None:
        secrets: Any = os.environ.get(SECRET_VARIABLE, "").split()
        where = f"The environment variable {SECRET_VARIABLE}"
    else:
        secrets = [given] if isinstance(given, str) else given
        where = "secret"
    how = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
    if (
        not isinstance(secrets, Sequence)
        or not secrets
        or not all(isinstance(secret, str) and secret for secret in secrets)
    ):
        raise ConfigurationError(
            f"{where} must be a secret shared by workers and command line, got none; {how}"
        )
    if (shortest := min(map(len, secrets))) < _SHORTEST:
        raise ConfigurationError(
            f"{where} must have at least {_SHORTEST} characters, got {shortest}; {how}"
        )
    return list(secrets)


def _signer(secrets: list[str]) -> Any:
    try:
        from itsdangerous import URLSafeSerializer
    except ImportError as error:
        raise ConfigurationError(
            "A bypass needs itsdangerous: pip install 'fastapi-maintenance-cluster[bypass]'."
        ) from error
    # The environment may contain lone surrogates. The signer uses the last key to sign.
    keys = [secret.encode("utf-8", "surrogatepass") for secret in reversed(secrets)]
    return URLSafeSerializer(
        keys, salt=_SALT, signer_kwargs={"key_derivation": "hmac", "digest_method": sha256}
    )


def _id_of(token: str) -> str:
    """Return the public id of a token, which does not reveal the token."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _tokens(scope: Scope) -> Iterator[str]:
    for name, value in scope["headers"]:
        if name == _HEADER_NAME:
            yield value.decode("latin-1")
        elif name == b"cookie" and _PREFIX in value:
            yield cookie_parser(value.decode("latin-1")).get(PARAMETER, "")


def _here(scope: Scope, query: bytes) -> str:
    """Return the URL with another query as a relative reference, which never leaves the host."""
    path: bytes = scope.get("raw_path") or quote(scope["path"], errors="replace").encode()
    segment = path.partition(b"?")[0].rpartition(b"/")[2]
    return f"./{quote(segment, _IN_SEGMENT)}{'?' if query else ''}{quote(query, _IN_QUERY)}"
