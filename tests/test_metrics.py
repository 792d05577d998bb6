"""Metrics of a worker, and the fields of log records."""

from __future__ import annotations

import ast
import gc
import logging
import re
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY, start_http_server
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, maintenance_mode_on
from fastapi_maintenance.backends import BaseStateBackend, RedisBackend
from fastapi_maintenance.metrics import NAMES, instrument
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.dependencies import modes_of
from fastapi_maintenance.runtime.mode import MaintenanceMode

from .conftest import RedisServerFactory
from .support.doubles import Switchboard
from .support.waiting import eventually, eventually_sync

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = (ROOT / "docs" / "metrics.md").read_text()
SOON: Final = 20.0


class Collector:
    """An SDK and the metrics that it collects."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader])
        self.meter = self._provider.get_meter("test")

    def collect(self) -> dict[str, list[tuple[Mapping[str, Any], float]]]:
        data: Any = self._reader.get_metrics_data()
        if data is None:
            return {}
        metrics = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return {
            metric.name: [(point.attributes, point.value) for point in metric.data.data_points]
            for metric in metrics
        }

    def value(self, name: str, **attributes: str) -> float | None:
        """The one value of a metric that has these attributes, None if there is none."""
        found = [
            value
            for point, value in self.collect().get(name, [])
            if attributes.items() <= point.items()
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def close(self) -> None:
        self._provider.shutdown()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def shop(backend: BaseStateBackend, title: str = "shop") -> FastAPI:
    app = FastAPI(title=title, openapi_url=None)
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    app.get("/")(lambda: None)
    return app


def test_metrics_count_state_and_answers(collector: Collector) -> None:
    backend = Switchboard(ttl=0.05)
    app = shop(backend)
    instrument(app, meter=collector.meter)
    assert collector.collect().get("maintenance.state", []) == []  # nothing is built yet

    with TestClient(app) as client:
        client.get("/")
        assert (collector.value("maintenance.state"), collector.value("maintenance.answers")) == (
            0,
            0,
        )
        client.portal.call(backend.write, ON)  # type: ignore[union-attr]
        assert [client.get("/").status_code for _ in range(3)] == [503] * 3
        assert (collector.value("maintenance.state"), collector.value("maintenance.answers")) == (
            1,
            3,
        )
        assert collector.value("maintenance.staleness") < 20  # type: ignore[operator]


def test_metrics_name_their_application(collector: Collector) -> None:
    shops = [shop(Switchboard(value), title) for value, title in ((True, "one"), (False, "two"))]
    instrument(*shops, meter=collector.meter)
    for app in shops:
        with TestClient(app) as client:
            client.get("/")

    values = {
        point["maintenance.app"]: (point["maintenance.switch"], value)
        for point, value in collector.collect()["maintenance.answers"]
    }
    assert values == {"one": ("Switchboard", 1), "two": ("Switchboard", 0)}


def test_metrics_of_a_deleted_application_end(collector: Collector) -> None:
    instrument(MaintenanceModeMiddleware(FastAPI(), backend=Switchboard()), meter=collector.meter)
    gc.collect()

    assert all(points == [] for points in collector.collect().values())


def test_metrics_count_requests_in_flight(collector: Collector) -> None:
    app = shop(Switchboard())
    app.get("/slow")(lambda: collector.value("maintenance.in_flight", kind="http"))
    instrument(app, meter=collector.meter)

    assert TestClient(app).get("/slow").json() == 1
    assert collector.value("maintenance.in_flight", kind="http") == 0
    assert collector.value("maintenance.in_flight", kind="websocket") == 0


async def test_metrics_without_a_known_state_are_absent(collector: Collector) -> None:
    mode = MaintenanceMode(Switchboard())
    instrument(mode, meter=collector.meter)

    assert {name for name, points in collector.collect().items() if points} == {
        "maintenance.state",
        "maintenance.answers",
        "maintenance.in_flight",
    }


async def test_metrics_show_the_link(
    own_redis_server: RedisServerFactory, collector: Collector
) -> None:
    server = own_redis_server()
    mode = MaintenanceMode(RedisBackend(server.url, ttl=4.0))
    instrument(mode, meter=collector.meter)
    async with mode:
        await eventually(
            lambda: collector.value("maintenance.link", delivery="tracking") == 1, within=SOON
        )
        assert [
            collector.value("maintenance.link", delivery=delivery)
            for delivery in ("message", "polling", "down")
        ] == [0, 0, 0]
        assert collector.value("maintenance.link.reconnects") == 0
        server.kill()
        await eventually(
            lambda: collector.value("maintenance.link", delivery="down") == 1, within=SOON
        )
        assert collector.value("maintenance.link", delivery="tracking") == 0
        server.start()
        await eventually(
            lambda: collector.value("maintenance.link", delivery="tracking") == 1, within=SOON
        )
        assert collector.value("maintenance.link.reconnects") == 1


async def test_metrics_show_known_propagation(
    redis_server: Any, redis_url: str, collector: Collector
) -> None:
    mode, elsewhere = MaintenanceMode(RedisBackend(redis_url)), RedisBackend(redis_url)
    instrument(mode, meter=collector.meter)
    async with mode:
        redis_server.cli("SET", "maintenance", "1")
        await eventually(lambda: mode.gate.closure, within=SOON)
        assert collector.value("maintenance.propagation") is None
        await elsewhere.write(OFF)
        await eventually(lambda: mode.gate.closure is None, within=SOON)
        assert 0 <= collector.value("maintenance.propagation") < SOON  # type: ignore[operator]
        mode.propagation = None
        async with maintenance_mode_on(elsewhere):
            await eventually(lambda: mode.gate.closure, within=SOON)
        assert 0 <= collector.value("maintenance.propagation") < SOON  # type: ignore[operator]


async def test_metrics_of_a_new_worker_have_no_propagation(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    await backend.write(ON)
    async with MaintenanceMode(backend) as mode:
        assert mode.gate.closure is not None
        assert mode.propagation is None


def test_prometheus_scrapes_the_documented_metrics(redis_url: str) -> None:
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        server, thread = start_http_server(0, addr="127.0.0.1", registry=REGISTRY)
    try:
        app = shop(RedisBackend(redis_url))
        instrument(app, meter=provider.get_meter("fastapi_maintenance"))
        with TestClient(app) as client:
            client.get("/")
            (mode,) = modes_of(app)
            eventually_sync(lambda: mode.cache.snapshot and mode.cache.snapshot.epoch, within=SOON)
            with maintenance_mode_on(redis_url):
                while client.get("/").status_code != 503:
                    pass
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
                text = answer.read().decode()
    finally:
        provider.shutdown()
        server.shutdown()
        server.server_close()
        thread.join()

    scraped = set(re.findall(r"^(maintenance_\w+){", text, re.MULTILINE))
    documented = re.findall(r"^\| `(maintenance\.[\w.]+)` \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert tuple(name for name, _ in documented) == NAMES
    assert scraped == {name for _, name in documented}


def test_metrics_without_an_sdk_cost_nothing() -> None:
    """In a new interpreter, without a provider."""
    code = (
        "from fastapi import FastAPI\nfrom fastapi_maintenance import MaintenanceModeMiddleware\n"
        "from fastapi_maintenance.metrics import instrument\nimport sys\napp = FastAPI()\n"
        "app.add_middleware(MaintenanceModeMiddleware)\ninstrument(app)\nassert "
        "'opentelemetry.sdk' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr


# -- logs ------------------------------------------------------------------------------------------


FIELDS: Final = {
    event: set(re.findall(r"`(maintenance\w*)`", named))
    for event, named in re.findall(
        r"^\| `([a-z-]+)` \| [^|]+ \|([^|]*)\|$", DOCUMENT.partition("\n## Logs\n")[2], re.MULTILINE
    )
}


def test_log_events_match_the_document() -> None:
    """The source code is read; the next test checks some records."""
    found: dict[str, set[str]] = {}
    for call in calls():
        match call:
            case ast.Call(func=ast.Name(id="log_fields"), args=[ast.Constant(value=str(event))]):
                named = {f"maintenance_{keyword.arg}" for keyword in call.keywords}
                assert found.setdefault(event, named) == named, event

    assert found == {event: names - {"maintenance"} for event, names in FIELDS.items()}


def test_log_records_have_fields() -> None:
    levels = {
        f"logger.{level}"
        for level in ("debug", "info", "warning", "error", "exception", "critical")
    }
    logging_calls = [call for call in calls() if ast.unparse(call.func) in levels]

    assert len(logging_calls) > 10
    assert [
        ast.unparse(call)
        for call in logging_calls
        if "extra" not in {keyword.arg for keyword in call.keywords}
    ] == []


def calls() -> Iterator[ast.Call]:
    """Every logging call of the package has them."""
    for file in (ROOT / "fastapi_maintenance").rglob("*.py"):
        yield from (
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
        )


async def test_log_record_fields_match_the_document(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis_server()
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    async with MaintenanceMode(RedisBackend(server.url, ttl=0.3)) as mode:
        await mode.backend.write(MaintenanceState(enabled=True, reason="OPS-417", by="ana"))
        server.cli("SET", "maintenance", "perhaps")
        await eventually(lambda: "unreadable" in events(caplog), within=SOON)
        server.cli("DEL", "maintenance")
        server.kill()
        await eventually(lambda: "unreachable" in events(caplog), within=SOON)
        server.start()
        await eventually(lambda: "reachable" in events(caplog), within=SOON)

    assert set(events(caplog)) == {
        "changed",
        "link",
        "unreachable",
        "reachable",
        "unreadable",
        "data-lost",
    }
    for record in caplog.records:
        if (event := vars(record).get("maintenance_event")) is not None:
            fields = {name for name in vars(record) if name.startswith("maintenance")} - {
                "maintenance_event"
            }
            assert fields == FIELDS[event], event
    (first, *_) = [record for record in caplog.records if vars(record).get("maintenance") == "on"]
    assert (vars(first)["maintenance_by"], vars(first)["maintenance_reason"]) == ("ana", "OPS-417")


def events(log: pytest.LogCaptureFixture) -> list[str]:
    return [
        vars(record)["maintenance_event"]
        for record in log.records
        if "maintenance_event" in vars(record)
    ]
