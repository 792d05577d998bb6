"""The faults: what each does to a site, how it flips meanwhile, and within which bound every worker
must be right again.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi_maintenance import MaintenanceState

from .site import KEY, Site

UP: Final = 2.0  # seconds after Redis can be reached again (DESIGN, failure table)
KILLED: Final = 0.25  # seconds after only the connection was lost
POLLING: Final = 1.2  # ttl; without pushes a sync finds the change, every ttl give or take a fifth


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens. `bound` says in words what its function sets."""

    name: str
    bound: str
    inject: Callable[[Site], Awaitable[object]]


async def _flip(site: Site) -> None:
    for _ in range(site.chance.choice([1, 1, 2, 5])):
        await site.flip()
        await asyncio.sleep(site.chance.choice([0.0, 0.0, 0.05]))


async def _expiry(site: Site) -> None:
    """A key with a time to live: the workers open by their own timers."""
    await site.open()
    life = site.chance.uniform(0.1, 1.0)
    closing = site.truth.begin(True, time.monotonic())
    await site.command("SET", KEY, "1", "PX", round(life * 1000))
    site.settle(closing)
    opening = site.truth.begin(False, closing.begins + life)
    opening.reference, opening.bound = closing.reference + life, site.ttl
    await asyncio.sleep(life)


async def _window(site: Site) -> None:
    """A window in the value: nobody writes to begin or to end it."""
    await site.open()
    begin = datetime.now(UTC) + timedelta(seconds=site.chance.uniform(0.2, 0.5))
    value = {
        "enabled": True,
        "starts_at": begin.isoformat(),
        "ends_at": (begin + timedelta(seconds=0.6)).isoformat(),
    }
    starts = time.monotonic() + (begin - datetime.now(UTC)).total_seconds()
    await site.command("SET", KEY, json.dumps(value))
    for closed, at in ((True, starts), (False, starts + 0.6)):
        # The two clocks are read one after the other, and by two processes.
        flip = site.truth.begin(closed, at - 0.02)
        flip.reference, flip.bound = at, site.ttl
    await asyncio.sleep(starts + 0.6 - time.monotonic())


async def _hold(site: Site) -> None:
    """A hold over the switch, on or off, taken and given back."""
    wanted = not site.truth.closed
    flip = site.truth.begin(wanted, time.monotonic())
    hold = await site.hold(wanted)
    site.settle(flip)
    await asyncio.sleep(site.chance.uniform(0.0, 0.5))
    flip = site.truth.begin(not wanted, time.monotonic())
    await site.backend.release(hold)
    site.settle(flip)


async def _kept_hold(site: Site) -> None:
    """A hold that ends and leaves the switch on: nothing must be seen of the change."""
    await site.open()
    flip = site.truth.begin(True, time.monotonic())
    hold = await site.hold(True)
    site.settle(flip)
    await asyncio.sleep(0.2)
    await site.backend.release(hold, keep=MaintenanceState(enabled=True, reason="it failed"))


async def _restart(site: Site) -> None:
    """The flip is on disk, and perhaps nobody has heard of it yet."""
    flip = site.truth.begin(not site.truth.closed, time.monotonic())
    await site.command("SET", KEY, "1" if flip.closed else "0")
    await _down(site, lose=False)
    site.settle(flip, bound=UP)


async def _restart_empty(site: Site) -> None:
    await site.close()
    await _down(site, lose=True)
    await _restored(site)


async def _down(site: Site, *, lose: bool) -> None:
    await asyncio.to_thread(site.server.kill)
    if lose:
        shutil.rmtree(site.server.home / "appendonlydir", ignore_errors=True)
    await asyncio.sleep(site.chance.uniform(0.0, 1.5))
    await asyncio.to_thread(site.server.start)


async def _flushall(site: Site) -> None:
    await site.close()
    await site.command("FLUSHALL")
    await _restored(site)


async def _restored(site: Site) -> None:
    """Wait until a worker has put the switch back, then flip. Nobody may have served meanwhile."""
    deadline = time.monotonic() + UP + site.truth.slack
    while not await site.command("EXISTS", KEY):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the switch was not written again within {UP} s")
        await asyncio.sleep(0.01)
    await site.flip(bound=UP)


async def _frozen(site: Site) -> None:
    """The write is sent to a frozen server, and is carried out when it thaws."""
    site.server.pause()
    flip = site.truth.begin(not site.truth.closed, time.monotonic())
    writing = asyncio.create_task(site.command("SET", KEY, "1" if flip.closed else "0"))
    await asyncio.sleep(site.chance.uniform(0.2, 2.5 * site.ttl))
    site.server.resume()
    await writing
    site.settle(flip, bound=UP)


async def _asleep(site: Site) -> None:
    """DEBUG SLEEP: a long script, a slow command."""
    flip = site.truth.begin(not site.truth.closed, time.monotonic())
    sleeping = asyncio.create_task(
        site.command("DEBUG", "SLEEP", f"{site.chance.uniform(0.1, 2 * site.ttl):.2f}")
    )
    await asyncio.sleep(0.05)
    await site.command("SET", KEY, "1" if flip.closed else "0")
    await sleeping
    site.settle(flip, bound=UP)


async def _stalled(site: Site) -> None:
    """The network of the workers carries nothing, and says nothing; the switch is flipped behind
    it.
    """
    up, down = site.chance.choice([(True, True), (True, False), (False, True)])
    await asyncio.to_thread(site.network.stall, up=up, down=down)
    await asyncio.sleep(site.chance.uniform(0.0, site.ttl))
    flip = site.truth.begin(not site.truth.closed, time.monotonic())
    await site.command("SET", KEY, "1" if flip.closed else "0")
    await asyncio.sleep(site.chance.uniform(0.1, 2 * site.ttl))
    await asyncio.to_thread(site.network.flow)
    site.settle(flip, bound=UP)


async def _reset(site: Site) -> None:
    await asyncio.to_thread(site.network.reset)
    await site.flip(bound=KILLED)


def _killed(kind: str) -> Callable[[Site], Awaitable[None]]:
    async def kill(site: Site) -> None:
        for _ in range(site.chance.choice([1, 1, 3])):
            await site.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await site.flip(bound=KILLED)

    return kill


async def _worker_killed(site: Site) -> None:
    site.fire(site.pick())
    await site.flip()
    await site.hire()


async def _worker_paused(site: Site) -> None:
    """A worker sleeps through a flip; what it answers when it wakes up may be old for one round
    trip, not for longer than ttl.
    """
    number = site.pick()
    worker = site.workers[number]
    worker.signal(signal.SIGSTOP)
    await asyncio.sleep(site.chance.uniform(0.0, 0.5))
    flip = await site.flip()
    flip.late = {number: float("inf")}
    await asyncio.sleep(site.chance.uniform(0.2, 2.0))
    worker.signal(signal.SIGCONT)
    flip.late = {number: time.monotonic()}


def _forbidden(*rules: str, bound: float) -> Callable[[Site], Awaitable[None]]:
    """The workers' user may not do this for a while."""

    async def forbid(site: Site) -> None:
        await site.command("ACL", "SETUSER", "worker", *rules)
        # What is tracked stays so until then.
        await site.command("CLIENT", "KILL", "USER", "worker")
        await asyncio.sleep(0.5 + site.chance.uniform(0.0, site.ttl))
        await site.flip(bound=bound * site.ttl)
        await asyncio.sleep(bound * site.ttl + 0.6)
        await site.command("ACL", "SETUSER", "worker", "on", "+@all", "~*", "&*")
        # Else they are content with polling until they connect again.
        await site.command("CLIENT", "KILL", "USER", "worker")
        await site.flip(bound=KILLED)

    return forbid


async def _locked_out(site: Site) -> None:
    """The workers' user is switched off, and their connections are ended."""
    await site.command("ACL", "SETUSER", "worker", "off")
    await site.command("CLIENT", "KILL", "USER", "worker")
    flip = site.truth.begin(not site.truth.closed, time.monotonic())
    await site.command("SET", KEY, "1" if flip.closed else "0")
    await asyncio.sleep(site.chance.uniform(0.2, 2 * site.ttl))
    await site.command("ACL", "SETUSER", "worker", "on")
    site.settle(flip, bound=UP)


async def _garbage(site: Site) -> None:
    """What cannot be read changes nothing."""
    value = site.chance.choice(
        [b"maybe", b"\xff\xfe", b'{"enabled": 7}', b"x" * 2**20, b"[" * 50_000, b""]
    )
    if value:
        await site.command("SET", KEY, value)
    else:
        await site.operator.pipeline(transaction=True).delete(KEY).lpush(KEY, "1").execute()
    await asyncio.sleep(site.chance.uniform(0.2, 1.5 * site.ttl))
    if not value:
        opening = site.truth.begin(False, time.monotonic()) if site.truth.closed else None
        await site.command("DEL", KEY)
        if opening is not None:
            site.settle(opening)
            return
    await site.flip()


async def _out_of_memory(site: Site) -> None:
    """Redis takes no writes any more, also not those of the sync; it can still be read, and keys
    deleted.
    """
    await site.close()
    await site.command("CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(site.chance.uniform(0.0, site.ttl))
    flip = site.truth.begin(False, time.monotonic())
    await site.command("DEL", KEY)
    site.settle(flip)
    await asyncio.sleep(site.ttl)
    await site.command("CONFIG", "SET", "maxmemory", "0")


FAULTS: Final = (
    Fault("flip, in any way of writing", "ttl", _flip),
    Fault("key expires", "ttl", _expiry),
    Fault("window begins and ends", "ttl", _window),
    Fault("hold taken and released", "ttl", _hold),
    Fault("hold ends and keeps the switch on", "ttl", _kept_hold),
    Fault("garbage in the switch", "ttl", _garbage),
    Fault("Redis killed, back with its data", "2 s once it is up", _restart),
    Fault("Redis killed, back empty", "2 s once it is up", _restart_empty),
    Fault("FLUSHALL", "2 s", _flushall),
    Fault("Redis frozen (SIGSTOP)", "2 s once it thaws", _frozen),
    Fault("Redis busy (DEBUG SLEEP)", "2 s once it is over", _asleep),
    Fault("Redis out of memory", "ttl", _out_of_memory),
    Fault("network silent", "2 s once it flows", _stalled),
    Fault("network resets connections", "250 ms", _reset),
    Fault("CLIENT KILL TYPE normal", "250 ms", _killed("normal")),
    Fault("CLIENT KILL TYPE pubsub", "250 ms", _killed("pubsub")),
    Fault(
        "ACL forbids tracking and messages",
        "1.2 ttl",
        _forbidden("-client|caching", "-client|tracking", "resetchannels", bound=POLLING),
    ),
    Fault("ACL forbids scripts", "1.2 ttl", _forbidden("-@scripting", bound=POLLING)),
    Fault("ACL locks the workers out", "2 s once they may", _locked_out),
    Fault("worker killed, another starts", "ttl", _worker_killed),
    Fault("worker paused (SIGSTOP)", "ttl once it goes on", _worker_paused),
)
