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

_MIN_SECRET: Final = 32  # characters
_MAX_TOKEN: Final = 512  # characters; longer ones are not verified
_SALT: Final = "fastapi_maintenance.bypass"
_HEADER_NAME: Final = HEADER.lower().encode()
_PREFIX: Final = f"{PARAMETER}=".encode()
_IN_SEGMENT: Final = "%!$&'()*+,;=:@~"  # RFC 3986, 3.3; "%" is part of what is encoded
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
        seconds = int(until.timestamp())
        # Random, so that none is like another.
        token = self._signer.dumps([seconds, token_urlsafe(9)])
        end = datetime.fromtimestamp(seconds, UTC)
        return token, BypassRecord(id=_id_of(token), until=end, note=note)

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
        given = [field for field in fields if field.startswith(_PREFIX)]
        rest = b"&".join(field for field in fields if not field.startswith(_PREFIX))
        scope["query_string"] = rest
        if scope.get("method") not in ("GET", "HEAD") or len(given) != 1:
            return None
        token = given[0].removeprefix(_PREFIX).decode("latin-1")
        expiry = self._expiry(token, records, now)
        if expiry is None:
            return None
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        response = Response(status_code=303, headers=headers | {"Location": _here(scope, rest)})
        cookie = {"max_age": max(1, int(expiry - now.timestamp())), **self._cookie}
        response.set_cookie(PARAMETER, token, httponly=True, samesite="lax", **cookie)
        return response

    def _expiry(self, token: str, records: Sequence[BypassRecord], now: datetime) -> int | None:
        """Return when a token expires, in seconds since the epoch; `None` if it is invalid."""
        from itsdangerous import BadData

        if len(token) > _MAX_TOKEN:
            return None
        try:
            expiry, _ = self._signer.loads(token)  # compares in constant time before it parses
        except BadData:
            return None
        is_listed = _id_of(token) in {record.id for record in records}
        return expiry if is_listed and now.timestamp() < expiry else None


def link_to(url: str, token: str) -> str:
    """Add a token to a URL."""
    base, hash_sign, fragment = url.partition("#")
    return f"{base}{'&' if '?' in base else '?'}{PARAMETER}={token}{hash_sign}{fragment}"


def _checked(given: Any) -> list[str]:
    where, secrets = "secret", [given] if isinstance(given, str) else given
    if given is None:
        where = f"The environment variable {SECRET_VARIABLE}"
        secrets = os.environ.get(SECRET_VARIABLE, "").split()
    is_list = isinstance(secrets, Sequence) and secrets
    if not is_list or not all(isinstance(secret, str) and secret for secret in secrets):
        need = "be a secret shared by workers and command line, got none"
    elif (shortest := min(map(len, secrets))) < _MIN_SECRET:
        need = f"have at least {_MIN_SECRET} characters, got {shortest}"
    else:
        return list(secrets)
    how = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
    raise ConfigurationError(f"{where} must {need}; {how}")


def _signer(secrets: list[str]) -> Any:
    try:
        from itsdangerous import URLSafeSerializer
    except ImportError as error:
        raise ConfigurationError(
            "A bypass needs itsdangerous: pip install 'fastapi-maintenance-cluster[bypass]'."
        ) from error
    # The environment may contain lone surrogates. The signer uses the last key to sign.
    keys = [secret.encode("utf-8", "surrogatepass") for secret in reversed(secrets)]
    options = {"key_derivation": "hmac", "digest_method": sha256}
    return URLSafeSerializer(keys, salt=_SALT, signer_kwargs=options)


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
