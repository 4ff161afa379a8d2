"""Small calls share a stream of their connection; what goes wrong with it is no call's loss."""

from __future__ import annotations

import struct
import threading

import pytest
from h2.events import DataReceived

from holdfast._engine import calls, loop, rpc
from holdfast._engine.endpoint import Link
from holdfast._wire.pipeline_pb2 import ExchangeRequest
from holdfast._wire.state_pb2 import GetStateRequest
from tests.support.cluster import wait_until
from tests.support.proxy import Flow

CALLS = 300  # more than a stream takes


@pytest.fixture
def held(hidden_cluster, namespace):
    """Reads that are on their way, held up before the first node; and its pipeline."""
    proxy = hidden_cluster.proxies[0]
    with hidden_cluster.client(namespace=namespace) as client:
        object_id = client.state.get_object_id("a", "A")
        client.state.set(object_id, "key", b"1")
        link = next(e.link for e in client.engine.runtime.pool.in_order() if e.link)
        proxy = hidden_cluster.proxies[hidden_cluster.endpoints.index(link.authority)]
        proxy.up = Flow.HOLD
        request = GetStateRequest(namespace=namespace, object_id=object_id, name="key")
        reads = [client.engine.read(calls.GET_STATE, request, deadline=30.0) for _ in range(CALLS)]
        yield link.pipeline, reads, proxy
        proxy.up = Flow.PASS


def test_more_calls_than_a_stream_takes_are_all_answered(held):
    pipeline, reads, proxy = held
    assert len(pipeline._exchange.owed) == 256
    proxy.up = Flow.PASS
    assert {read.result(30).value for read in reads} == {b"1"}
    assert pipeline._exchange.owed == {}


def test_calls_given_up_are_not_waited_for(held):
    pipeline, reads, proxy = held
    for read in reads[1:]:
        assert read.cancel()
    proxy.up = Flow.PASS
    assert reads[0].result(30).value == b"1"
    wait_until(lambda: not pipeline._exchange.owed, "all have had their answers")


def test_node_that_does_not_know_such_streams_gets_each_call_by_itself(held):
    pipeline, reads, proxy = held
    pipeline.end(pipeline._exchange, rpc.Status(rpc.UNIMPLEMENTED, "no such method"))
    assert pipeline.call("/holdfast.v1.State/GetState", 1.0, b"") is None
    proxy.up = Flow.PASS
    assert {read.result(30).value for read in reads} == {b"1"}


def test_stream_that_ends_is_opened_anew(held):
    pipeline, reads, proxy = held
    before = pipeline._exchange
    before.on_end(None)  # as a node does that stops in good order
    proxy.up = Flow.PASS
    assert {read.result(30).value for read in reads} == {b"1"}
    answered = pipeline.call("/holdfast.v1.Cluster/KeepSession", 5.0, b"")
    with pytest.raises(rpc.Status):
        answered.result(30)
    assert pipeline._exchange is not before


def test_long_requests_go_by_themselves(held):
    pipeline, _, _ = held
    assert pipeline.call("/holdfast.v1.State/SetState", 1.0, b"x" * (64 * 1024 + 1)) is None


# The first has nobody to wait for; it would only be later by the loop's next round.
def test_call_goes_at_once_by_itself_and_together_with_those_beside_it(pair):
    pipeline = Link(loop.here(), pair.connection, "n1:7480").pipeline
    stands_still, goes_on = threading.Event(), threading.Event()
    loop.here().call_soon(lambda: stands_still.set() or goes_on.wait(60))
    try:
        assert stands_still.wait(60)
        pipeline.call("/alone", 9.0, b"")
        pair.peer.await_event(DataReceived)
        for _ in range(3):
            pipeline.call("/beside", 9.0, b"")
    finally:
        goes_on.set()
    pair.peer.await_event(DataReceived, 2)
    paths = [[call.method for call in message.calls] for message in _messages(pair.peer)]
    assert paths == [["/alone"], ["/beside"] * 3]


def _messages(peer):
    """What the peer has been sent on streams of calls."""
    data = b"".join(event.data for event in peer.seen if isinstance(event, DataReceived))
    messages = []
    while data:
        end = 5 + struct.unpack_from(">xI", data)[0]
        messages.append(ExchangeRequest.FromString(data[5:end]))
        data = data[end:]
    return messages
