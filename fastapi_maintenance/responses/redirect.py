"""The target of `redirect=`, compared with requests by normalised URLs (RFC 3986, 6.2.2, 6.2.3)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from starlette.types import Scope

_HERE: Final = "_"  # a host that no URL names
_HOST: Final = re.compile(r"(?:.*@)?(.*?)\.?(?::(?:80|443)?)?", re.DOTALL)


def leads_to_itself(scope: Scope, target: str) -> bool:
    """Return whether a redirect to the target would lead to the requested page, and never end.

    The scheme and its default port are ignored, as a proxy may have ended TLS; so are query,
    fragment and a slash at the end, which routers add. A path counts with and without `root_path`.
    """
    hosts = [
        _normal_host(value.decode("latin-1")) for name, value in scope["headers"] if name == b"host"
    ]
    for path in (scope["path"], scope.get("root_path", "") + scope["path"]):
        there = urlsplit(urljoin(f"//{_HERE}{quote(path, errors='replace')}", target))
        if _normal_path(unquote(there.path)) == _normal_path(path) and (
            there.netloc == _HERE or _normal_host(there.netloc) in hosts
        ):
            return True
    return False


def _normal_host(netloc: str) -> str:
    match = _HOST.fullmatch(netloc.lower())
    assert match is not None  # it takes everything
    return match[1]


def _normal_path(path: str) -> str:
    kept: list[str] = []
    for segment in path.rstrip("/").split("/"):
        if segment == "..":
            kept = kept[:-1] or [""]
        elif segment != ".":
            kept.append(segment)
    return "/".join(kept)
