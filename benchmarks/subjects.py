"""What is compared. Run by the Python of each environment, so it imports nothing of this repository but what is installed there.

python -P benchmarks/subjects.py race '{"subjects": ["bare", "ours, env"], "rounds": 20, "expect": [200]}'    prints the times of each round
python -P benchmarks/subjects.py serve "ours, env" 8000                                                      serves one over uvicorn
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REDIS = os.environ.get("BENCHMARK_REDIS", "redis://127.0.0.1:6379/0")
FILE = os.environ.get("BENCHMARK_FILE", "maintenance.json")
BATCH = 0.012  # seconds: short beside the turns that a busy machine gives its processes, long beside the clock


# -- the application -------------------------------------------------------------------------------------------------------


def routes_of(app: FastAPI, count: int, marks: str) -> None:
    """The cheapest JSON endpoint there is, then as many with path parameters as make up the count."""
    marked = ours_mark(marks)

    @app.get("/")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    for number in range(1, count):

        async def endpoint(item: str) -> dict[str, str]:
            return {"item": item}

        app.get(f"/things-{number}/{{item}}/parts")(endpoint)

    if marked is not None:

        async def special() -> None: ...

        app.get("/special")(marked(special))


def ours_mark(marks: str) -> Any:
    if not marks:
        return None
    import fastapi_maintenance  # ours or the modelled one: they share the name and these two

    return getattr(fastapi_maintenance, f"force_maintenance_mode_{marks}")


class PassThrough:
    """The least that a middleware can do."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


BODY = b'{"detail":"Service temporarily unavailable due to maintenance"}'
START = {
    "type": "http.response.start",
    "status": 503,
    "headers": [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"content-length", b"%d" % len(BODY)),
        (b"retry-after", b"3600"),
    ],
}
CONTENT = {"type": "http.response.body", "body": BODY}


class HandWritten:
    """The cheapest 503 there is: encoded beforehand, the same for everybody."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await send(START)
        await send(CONTENT)


class Routing:
    """What the framework itself does to find the route, and nothing after it."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        for route in scope["app"].router.routes:
            match, _ = route.matches(scope)
            if match.value == 2:
                break
        await send(START)
        await send(CONTENT)


def with_middleware(app: FastAPI, middleware: Any) -> FastAPI:
    app.add_middleware(middleware)
    return app


# -- what people write by hand ---------------------------------------------------------------------------------------------


def with_get_in_dependency(app: FastAPI) -> FastAPI:
    from redis.asyncio import Redis

    client = Redis.from_url(REDIS)

    async def check() -> None:
        if await client.get("maintenance") == b"1":
            raise HTTPException(503)

    app.router.dependencies.append(Depends(check))
    return app


def with_get_in_middleware(app: FastAPI) -> FastAPI:
    from redis.asyncio import Redis

    client = Redis.from_url(REDIS)

    class Check(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            if await client.get("maintenance") == b"1":
                return Response(status_code=503)
            return await call_next(request)

    app.add_middleware(Check)
    return app


# -- ours and the modelled package, which share a vocabulary ---------------------------------------------------------------


def with_ours(app: FastAPI, backend: Any) -> FastAPI:
    from fastapi_maintenance import MaintenanceModeMiddleware

    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    return app


def with_modelled(app: FastAPI, kind: str) -> FastAPI:
    from redis.asyncio import Redis

    from fastapi_maintenance import MaintenanceModeMiddleware
    from fastapi_maintenance import backends as modelled  # theirs, in their environment

    class RedisRecipe(modelled.BaseStateBackend):
        """As its documentation has it."""

        def __init__(self) -> None:
            self.client = Redis.from_url(REDIS)

        async def get_value(self) -> bool:
            return await self.client.get("maintenance") == b"1"

        async def set_value(self, value: bool) -> None:
            await self.client.set("maintenance", "1" if value else "0")

    made: dict[str, Callable[[], Any]] = {
        "env": lambda: modelled.EnvVarBackend(),
        "file": lambda: modelled.LocalFileBackend(FILE),
        "redis": RedisRecipe,
    }
    app.add_middleware(MaintenanceModeMiddleware, backend=made[kind]())
    return app


def with_waygate(app: FastAPI, kind: str) -> FastAPI:
    import waygate
    from waygate.core.backends.redis import RedisBackend
    from waygate.fastapi import WaygateMiddleware

    engine = (
        waygate.WaygateEngine(backend=RedisBackend(REDIS))
        if kind == "redis"
        else waygate.WaygateEngine()
    )
    app.add_middleware(WaygateMiddleware, engine=engine)
    app.state.engine = engine
    return app


MAKERS: dict[str, Callable[[FastAPI], FastAPI]] = {
    "bare": lambda app: app,
    "pass-through": lambda app: with_middleware(app, PassThrough),
    "hand-written 503": lambda app: with_middleware(app, HandWritten),
    "routing": lambda app: with_middleware(app, Routing),
    "GET in a dependency": with_get_in_dependency,
    "GET in a middleware": with_get_in_middleware,
    "ours, redis": lambda app: with_ours(app, REDIS),
    "ours, file": lambda app: with_ours(app, f"file:{FILE}"),
    "ours, env": lambda app: with_ours(app, "env:BENCHMARK_MODE"),
    "modelled, redis": lambda app: with_modelled(app, "redis"),
    "modelled, file": lambda app: with_modelled(app, "file"),
    "modelled, env": lambda app: with_modelled(app, "env"),
    "waygate, redis": lambda app: with_waygate(app, "redis"),
    "waygate, memory": lambda app: with_waygate(app, "memory"),
}


def make(subject: str, routes: int = 1, marks: str = "") -> FastAPI:
    """A subject's application. A dependency has to be there before the routes that it is for."""
    app = FastAPI(openapi_url=None)
    app = MAKERS[subject](app)
    routes_of(
        app,
        routes,
        "" if subject in ("bare", "pass-through", "hand-written 503", "routing") else marks,
    )
    return app


# -- in process ------------------------------------------------------------------------------------------------------------


def scope_of(path: str) -> Scope:
    """What uvicorn hands over for a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"accept", b"*/*"), (b"user-agent", b"wrk")],
        "state": {},
    }


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    pass


async def status_of(app: App, path: str) -> int:
    """What a request is answered with."""
    statuses: list[int] = []

    async def note(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope_of(path), receive, note)
    return statuses[0]


async def batch(app: App, scope: Scope, count: int) -> tuple[float, float]:
    """Seconds a request, on the clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        await app(dict(scope), receive, send)
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


@asynccontextmanager
async def living(app: App) -> AsyncIterator[None]:
    """Run the application's lifespan around the block."""
    started, ending, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    messages: Iterator[str] = iter(("lifespan.startup", "lifespan.shutdown"))

    async def next_message() -> Any:
        kind = next(messages)
        if kind == "lifespan.shutdown":
            await ending.wait()
        return {"type": kind}

    async def heard(message: Any) -> None:
        (started if "startup" in message["type"] else ended).set()

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.ensure_future(app(scope, next_message, heard))
    await started.wait()
    try:
        yield
    finally:
        ending.set()
        await asyncio.wait([task], timeout=5)


async def race(
    subjects: list[str],
    *,
    rounds: int,
    routes: int = 1,
    marks: str = "",
    path: str = "/",
    expect: list[int] | None = None,
) -> dict[str, list[tuple[float, float]]]:
    """Let the subjects take turns, round after round, so that what else the machine does meets them all."""
    apps = {subject: make(subject, routes, marks) for subject in subjects}
    times: dict[str, list[tuple[float, float]]] = {subject: [] for subject in subjects}
    scope, counts = scope_of(path), {}
    async with AsyncExitStack() as stack:
        for subject, app in apps.items():
            await stack.enter_async_context(living(app))
            status = await status_of(app, path)
            if expect is not None and status not in expect:
                raise SystemExit(f"{subject} answered {status} to {path}")
            await batch(app, scope, 50)
            fastest = min([await batch(app, scope, 20) for _ in range(3)])[0]
            counts[subject] = max(5, min(3000, round(BATCH / fastest)))
        gc.collect()
        gc.disable()
        for number in range(rounds):
            turn = number % len(subjects)
            for subject in subjects[turn:] + subjects[:turn]:
                times[subject].append(await batch(apps[subject], scope, counts[subject]))
            await asyncio.sleep(0)  # links have their turn, and their polls are not counted
            if number % 10 == 9:
                gc.collect()
    return times


# -- over uvicorn ----------------------------------------------------------------------------------------------------------


def serve(subject: str, port: int) -> None:
    import uvicorn

    uvicorn.run(
        make(subject),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
    )


if __name__ == "__main__":
    if sys.argv[1] == "race":
        print(json.dumps(asyncio.run(race(**json.loads(sys.argv[2])))))
    else:
        serve(sys.argv[2], int(sys.argv[3]))
