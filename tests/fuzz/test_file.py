"""Any bytes in the switch's file and in the one of its holds are read as something or change
nothing.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.exceptions import MaintenanceError
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import ON

from .effort import effort
from .garbage import JSON, SWITCHES

ENTRY: Final = (
    st.dictionaries(
        st.sampled_from(["state", "since", "lifts", "deadline", "host", "pid", "start"]), JSON
    )
    | JSON
)
NEAR: Final = st.fixed_dictionaries(
    {
        "state": st.just({"enabled": True}) | JSON,
        "since": st.floats() | st.just(1.0) | JSON,
        "deadline": st.floats() | st.just(9e9) | JSON,
        "host": st.just("h") | JSON,
        "pid": st.sampled_from([0, -1, 1, 2**31, 10**30, "1", 1.5, None]),
        "start": st.none() | JSON,
        "lifts": st.just([]) | JSON,
    }
)
HOLDS: Final = st.one_of(
    SWITCHES,
    st.fixed_dictionaries(
        {"holds": st.dictionaries(st.text(max_size=8), ENTRY | NEAR, max_size=3) | JSON}
    ).map(lambda document: json.dumps(document).encode()),
)


@effort(60)
@example(b"[" * 30_000, b"[" * 30_000, None)
@example(
    b"1",
    b'{"holds": {"a": {"state": {"enabled": true}, "deadline": 1e999, "host": "h", "pid": 1, '
    b'"start": null}}}',
    b"x",
)
@given(st.none() | SWITCHES, st.none() | HOLDS, st.none() | st.binary(max_size=40))
def test_any_bytes_in_the_files_are_survived(
    switch: bytes | None, holds: bytes | None, lock: bytes | None
) -> None:
    """What can be read is read; what cannot is an error of ours; and a hold can be taken and given
    back all the same.
    """
    with TemporaryDirectory() as home:
        path = Path(home, "m.json")
        for suffix, content in (("", switch), (".holds", holds), (".lock", lock)):
            if content is not None:
                Path(f"{path}{suffix}").write_bytes(content)
        asyncio.run(use(LocalFileBackend(path)))


async def use(backend: LocalFileBackend) -> None:
    reading = await backend.read()
    evaluate(reading, reading.now)
    assert (reading.switch is None or reading.holds is None) <= (reading.error is not None)
    with suppress(MaintenanceError):
        await backend.get_value()
    hold = await backend.acquire(Hold("ours", ON), 30.0)
    reading = await backend.read()
    assert evaluate(reading, reading.now).state.enabled
    assert await backend.renew(hold, 30.0)
    await backend.release(hold)
    await backend.clear()
    assert (await backend.read()).holds == ()
    assert await backend.get_value() is False
