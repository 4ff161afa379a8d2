"""The Twisted flavour: Deferreds that fire on the reactor's thread (B2)."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from twisted.internet import defer, reactor
from twisted.internet.threads import blockingCallFromThread

from holdfast import NotFound
from holdfast.instance import Instance
from holdfast.lease import Loss
from holdfast.twisted import Client
from holdfast.watch import StateFilter


@pytest.fixture(scope="module")
def reactor_thread():
    """The reactor, on a thread of its own: it runs once a process."""
    thread = threading.Thread(
        target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True
    )
    thread.start()
    yield thread
    reactor.callFromThread(reactor.stop)
    thread.join(10)


@pytest.fixture
def run(cluster, namespace, reactor_thread):
    """Runs a coroutine function with a client on the reactor."""

    def run(function):
        async def main():
            client = Client(cluster.endpoints, namespace=namespace)
            try:
                await function(client)
            finally:
                await client.close()

        def start():
            assert threading.current_thread() is reactor_thread
            return defer.ensureDeferred(main()).addTimeout(60, reactor)

        blockingCallFromThread(reactor, start)

    return run


# B2: a master that only checks its configuration must not choose a reactor, nor start a thread.
def test_import_and_constructor_do_nothing():
    program = (
        "import sys, threading; from holdfast.twisted import Client; Client('h:1').state; "
        "assert 'twisted.internet.reactor' not in sys.modules; "
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_operations_give_deferreds(run, reactor_thread):
    async def check(client):
        object_id = await client.state.get_object_id("a", "A")
        fired_on = []
        written = client.state.set(object_id, "key", b"1")
        written.addCallback(lambda done: fired_on.append(threading.current_thread()) or done)
        assert (await written).written
        assert fired_on == [reactor_thread]
        with pytest.raises(NotFound):
            await client.state.set(999, "key", b"1")

    run(check)


def test_functions_of_the_program_run_on_the_reactor(run, reactor_thread):
    async def check(client):
        object_id = await client.state.get_object_id("a", "A")

        def create():
            assert threading.current_thread() is reactor_thread
            later = defer.Deferred()
            reactor.callLater(0, later.callback, b"1")
            return later

        assert (await client.state.atomic_create(object_id, "key", create)).created
        assert (await client.state.update(object_id, "key", lambda old: old + b"1")).written

        def fail(_):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await client.state.create_exclusive(object_id, "k2", fail)
        assert (await client.state.get(object_id, "key")).value == b"11"

    run(check)


def test_cancelled_deferred_gives_its_call_up(run):
    async def check(client):
        object_id = await client.state.get_object_id("a", "A")
        watch = await client.watch(StateFilter(object_id))
        waiting = watch.next()
        waiting.cancel()
        with pytest.raises(defer.CancelledError):
            await waiting
        await client.state.set(object_id, "key", b"1")
        assert (await watch.next()).event.value == b"1"
        waiting = watch.next()
        watch.close()
        with pytest.raises(defer.CancelledError):
            await waiting

    run(check)


# M5: renewals do not wait for the reactor.
def test_lease_outlives_a_reactor_that_is_held_up(run):
    async def check(client):
        lease = await client.hold_lease("one", Instance.random(), 1.0)
        is_lost = threading.Event()
        lease.on_lost(lambda _: is_lost.set())
        assert not is_lost.wait(1.2)  # the reactor does not run meanwhile
        lease.check()
        lost = lease.lost()
        await client.masters.set_state(lease.master_id, False)
        assert await lost == Loss.ENDED

    run(check)
