"""The API behind a real nginx that compresses and so weakens ETags."""

from __future__ import annotations

import gzip
import json
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any, Final

from fastapi_maintenance.backends import backend_from_url

from ..support.nginx import nginx
from ..support.serving import serving
from .conftest import JSON, shop

COMPRESSES: Final = "gzip on; gzip_types application/json; gzip_min_length 0; gzip_proxied any;"


def test_weak_etag_of_nginx_is_accepted_in_if_match(
    tmp_path: Path, url: str, free_port: int
) -> None:
    with (
        serving(shop(backend_from_url(url))) as upstream,
        nginx(upstream, free_port, tmp_path, COMPRESSES) as address,
    ):
        switch = f"{address}maintenance/switch"
        status, headers, _ = send("GET", switch)
        etag = headers["ETag"]
        assert (status, headers["Content-Encoding"], etag[:3]) == (200, "gzip", 'W/"')

        assert send("PUT", switch, {"enabled": True}, If_Match='W/"0123"')[0] == 412
        status, headers, on = send("PUT", switch, {"enabled": True}, If_Match=etag)
        assert (status, on["enabled"], headers["ETag"][:3]) == (200, True, 'W/"')
        assert send("DELETE", switch, If_Match=etag)[0] == 412, "the switch has changed since"
        status, _, off = send("DELETE", switch, If_Match=headers["ETag"])
        assert (status, off["enabled"]) == (200, False)


def send(method: str, url: str, body: object = None, **headers: str) -> tuple[int, Message, Any]:
    """Return the status, headers and JSON body of the response."""
    sent = (
        JSON
        | {"Accept-Encoding": "gzip"}
        | {name.replace("_", "-"): value for name, value in headers.items()}
    )
    request = urllib.request.Request(
        url, None if body is None else json.dumps(body).encode(), sent, method=method
    )
    try:
        answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=30
        )
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        content = answer.read()
    return (
        answer.status,
        answer.headers,
        json.loads(
            gzip.decompress(content) if answer.headers["Content-Encoding"] == "gzip" else content
        ),
    )
