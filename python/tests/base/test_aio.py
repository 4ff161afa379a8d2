"""The asyncio flavour: the same operations, cancelled and interleaved as asyncio has it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from holdfast import AlreadyClaimed, LeaseLost, NotFound, aio
from holdfast.instance import Instance
from holdfast.lease import Loss
from holdfast.transfer import ObjectRow
from holdfast.watch import StateFilter
from tests.support.proxy import Flow
from tests.support.scale import bound, report, scale


@pytest.fixture
def run(cluster, namespace):
    """Runs a coroutine function with a client, in an event loop of its own."""

    def run(function):
        async def main():
            # Thousands of calls at a time wait for each other.
            async with aio.Client(cluster.endpoints, namespace=namespace, deadline=60.0) as client:
                await function(client)

        asyncio.run(asyncio.wait_for(main(), 100))

    return run


def test_operations_are_awaited(run):
    async def check(client):
        object_id = await client.state.get_object_id("a", "A")
        assert (await client.state.set(object_id, "key", b"1")).written
        assert (await client.state.get(object_id, "key")).value == b"1"
        with pytest.raises(NotFound):
            await client.state.set(999, "key", b"1")
        rows = [row async for part in client.state.export() for row in part]
        assert rows[0] == ObjectRow(object_id, "a", "A")
        master = await client.masters.find_id("one")
        source = await client.changesources.find_id("repo")
        await client.changesources.set_master(source, master)
        with pytest.raises(AlreadyClaimed):
            await client.changesources.set_master(source, master)

    run(check)


# S4: the program's own function runs on its event loop, be it a coroutine function or not.
def test_functions_of_the_program_run_on_its_loop(run):
    async def check(client):
        loop = asyncio.get_running_loop()
        object_id = await client.state.get_object_id("a", "A")

        async def create():
            await asyncio.sleep(0)
            assert asyncio.get_running_loop() is loop
            return b"1"

        assert (await client.state.atomic_create(object_id, "key", create)).created
        assert (await client.state.create_exclusive(object_id, "k2", lambda _: b"2")).created
        written = await client.state.update(object_id, "key", lambda old: old + b"1")
        assert written.written
        assert (await client.state.get(object_id, "key")).value == b"11"

        async def fail(_):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await client.state.create_exclusive(object_id, "k3", fail)

    run(check)


def test_many_calls_are_under_way_at_a_time(run):
    async def check(client):
        object_id = await client.state.get_object_id("a", "A")
        count = scale(10_000, 500)
        began = time.perf_counter()
        writes = [client.state.set(object_id, f"key-{n}", b"1") for n in range(count)]
        assert all(done.written for done in await asyncio.gather(*writes))
        report("python: asyncio writes a second", f"{count / (time.perf_counter() - began):.0f}")
        assert len(await client.state.list_state(object_id)) == count

    run(check)


# G5: a write that is cancelled is given up, and the next ones go on.
def test_cancelled_write_is_given_up(hidden_cluster, namespace):
    async def check():
        async with aio.Client(hidden_cluster.endpoints, namespace=namespace) as client:
            object_id = await client.state.get_object_id("a", "A")
            await client.state.set(object_id, "key", b"0")
            for proxy in hidden_cluster.proxies:
                proxy.up = Flow.HOLD
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.state.set(object_id, "key", b"1"), 0.2)
            for proxy in hidden_cluster.proxies:
                proxy.up = Flow.PASS
            assert (await client.state.set(object_id, "key", b"2")).written
            assert (await client.state.get(object_id, "key")).value == b"2"

    asyncio.run(check())


# M5: renewals do not wait for the event loop.
def test_lease_outlives_a_loop_that_is_held_up(run):
    async def check(client):
        source = await client.changesources.find_id("repo")
        async with await client.hold_lease("one", Instance.random(), 1.0) as lease:
            async with lease.owning(source) as fence:
                is_lost = threading.Event()
                lease.on_lost(lambda _: is_lost.set())
                assert not is_lost.wait(1.2)  # the event loop does not run meanwhile
                lease.check()
                object_id = await client.state.get_object_id("a", "A")
                assert (await lease.set_fenced(object_id, "key", b"1", fence)).written
            assert (await client.changesources.get(source)).claimant is None
            lost = asyncio.ensure_future(lease.lost())
            await client.masters.set_state(lease.master_id, False)
            assert await asyncio.wait_for(lost, bound(1)) == Loss.ENDED
            with pytest.raises(LeaseLost):
                lease.check()

    run(check)


def test_watch_is_iterated_and_closed(run):
    async def check(client):
        object_id = await client.state.get_object_id("a", "A")
        async with await client.watch(StateFilter(object_id)) as watch:
            for n in range(3):
                await client.state.set(object_id, "key", b"%d" % n)
            seen = []
            async for change in watch:
                seen.append(change.event.value)
                if len(seen) == 3:
                    break
            assert seen == [b"0", b"1", b"2"]
            waiting = asyncio.ensure_future(watch.next())
            await asyncio.sleep(0)
            watch.close()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(check)


# C6: whoever stops waiting leaves the line.
def test_cancelled_wait_leaves_the_line(run):
    async def check(client):
        source = await client.changesources.find_id("repo")
        owner = await client.hold_lease("one", Instance.random(), 30.0)
        other = await client.hold_lease("two", Instance.random(), 30.0)
        fence = await owner.claim(source)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(other.await_claim(source), 0.3)
        # It leaves behind the program's back, but before anything that comes later.
        await owner.release(fence)
        for _ in range(200):
            if (await client.changesources.get(source)).claimant is None:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("it got what it no longer waited for")
        await owner.close()
        await other.close()

    run(check)
