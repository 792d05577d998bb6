"""The HTML of the panel, without a browser."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from typing import get_args

from starlette.testclient import TestClient

from fastapi_maintenance.admin.models import WorkerReport
from fastapi_maintenance.backends.redis.link import Delivery

from ..support.doubles import Switchboard
from .conftest import Administer, shop


def test_panel_is_self_contained_under_a_strict_policy(administer: Administer) -> None:
    answer = administer(Switchboard()).get("")
    policy = dict(
        directive.split(" ", 1)
        for directive in answer.headers["content-security-policy"].split("; ")
    )

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.headers["x-frame-options"], answer.headers["x-content-type-options"]) == (
        "DENY",
        "nosniff",
    )
    assert (
        policy["default-src"]
        == policy["base-uri"]
        == policy["form-action"]
        == policy["frame-ancestors"]
        == "'none'"
    )
    assert policy["connect-src"] == "'self'"
    for element in ("style", "script"):
        (text,) = re.findall(f"<{element}>(.*?)</{element}>", answer.text, re.DOTALL)
        assert (
            policy[f"{element}-src"]
            == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        )
    assert not re.search(
        r"unsafe|https?:|\bstyle=|\bon\w+=\"", " ".join(policy.values()) + answer.text
    )


def test_panel_without_a_slash_redirects() -> None:
    answer = TestClient(shop(Switchboard())).get("/maintenance")

    assert (answer.status_code, answer.url.path) == (200, "/maintenance/")


def test_panel_explains_every_word_of_its_worker_table(administer: Administer) -> None:
    page = administer(Switchboard()).get("").text
    (table,) = re.findall('<table id="workers-table"(.*?)</table>', page, re.DOTALL)
    (legend,) = re.findall('<details class="legend">(.*?)</details>', page, re.DOTALL)

    assert set(re.findall("<b>(.*?)</b>", legend)) == {
        *Delivery,
        *get_args(WorkerReport.model_fields["status"].annotation),
    }
    assert {"Host", "Process", *re.findall("<dt>(.*?)</dt>", legend)} == set(
        re.findall("<th scope.*?>(.*?)</th>", table)
    )


def test_panel_is_not_in_the_openapi_document() -> None:
    assert "/maintenance/" not in shop(Switchboard()).openapi()["paths"]
