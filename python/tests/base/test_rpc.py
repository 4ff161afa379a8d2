"""gRPC on a connection whose other end the test is."""

from __future__ import annotations

import struct
from concurrent.futures import CancelledError

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamReset
from hyperframe.frame import DataFrame, RstStreamFrame

from holdfast._engine import rpc
from holdfast._engine.h2_client import STREAM_WINDOW_BYTES
from tests.support.cluster import wait_until
from tests.support.scale import scale

SECONDS = 10.0
HEADERS = rpc.Headers("n1:7480", "holdfast-python")


def ask(pair, request=b"request", seconds=9.9):
    return rpc.unary(pair.connection, HEADERS.block("/holdfast.v1.State/Get", seconds), request)


def open_stream(pair):
    return rpc.stream(pair.connection, HEADERS.block("/holdfast.v1.Watch/Watch", None), b"request")


def enveloped(message, compressed=0):
    return struct.pack(">BI", compressed, len(message)) + message


def test_request_is_as_grpc_says(pair):
    answered = ask(pair)
    pair.peer.await_requests(1)
    assert pair.peer.await_event(RequestReceived).headers == [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/holdfast.v1.State/Get"),
        (":authority", "n1:7480"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "holdfast-python"),
        ("grpc-timeout", "9900m"),
    ]
    assert pair.peer.await_event(DataReceived).data == enveloped(b"request")
    pair.peer.answer(1, enveloped(b"response"))
    assert answered.result(SECONDS) == b"response"


def test_time_outs_do_not_push_headers_out_of_the_table(pair):
    for n in range(scale(500, 100)):
        answered = ask(pair, seconds=9 - n / 1000)
        pair.peer.await_requests(n + 1)
        pair.peer.answer(2 * n + 1, enveloped(b""))
        assert answered.result(SECONDS) == b""
    known = [name for name, _ in pair.peer.h2.decoder.header_table.dynamic_entries]
    assert sorted(known) == [b":authority", b":path", b"content-type", b"te", b"user-agent"]


@pytest.mark.parametrize(
    ("status", "data", "trailers", "code", "message", "details"),
    [
        # What a node says: text with anything in it, details without padding.
        (
            "200",
            b"",
            [
                ("grpc-status", "9"),
                ("grpc-message", "caf%C3%A9 %25"),
                ("grpc-status-details-bin", "AAECAw"),
            ],
            rpc.FAILED_PRECONDITION,
            "café %",
            b"\x00\x01\x02\x03",
        ),
        ("200", b"", [("grpc-status", "14")], rpc.UNAVAILABLE, "gRPC status 14", None),
        # A response before a status that is not OK is none.
        ("200", enveloped(b"x"), [("grpc-status", "13")], rpc.INTERNAL, "gRPC status 13", None),
        ("404", b"", [("a", "b")], rpc.UNKNOWN, "HTTP status 404", None),
        ("200", b"", [("grpc-status", b"\xb2")], rpc.UNKNOWN, "gRPC status", None),
        ("200", b"", [("grpc-status", "0")], rpc.INTERNAL, "without a response", None),
        ("200", enveloped(b"xyz")[:-1], [("grpc-status", "0")], rpc.INTERNAL, "cut short", None),
        ("200", enveloped(b"x")[:3], [("grpc-status", "0")], rpc.INTERNAL, "cut short", None),
        ("200", enveloped(b"x", 1), [("grpc-status", "0")], rpc.INTERNAL, "is compressed", None),
        (
            "200",
            struct.pack(">BI", 0, rpc.MESSAGE_BYTES_MAX + 1),
            [("grpc-status", "0")],
            rpc.INTERNAL,
            f"{rpc.MESSAGE_BYTES_MAX + 1} bytes long",
            None,
        ),
    ],
)
def test_answers_that_are_none(pair, status, data, trailers, code, message, details):
    answered = ask(pair)
    pair.peer.await_requests(1)
    pair.peer.send(
        pair.peer.headers(1, [(":status", status), ("content-type", "application/grpc")]),
        DataFrame(1, data),
        pair.peer.headers(1, trailers, "END_STREAM"),
    )
    with pytest.raises(rpc.Status) as failed:
        answered.result(SECONDS)
    found = failed.value
    assert (found.code, found.details) == (code, details)
    assert message in found.message
    assert (found.is_sent, found.is_local) == (True, False)


# G5
@pytest.mark.parametrize(
    ("code", "is_sent"), [(ErrorCodes.REFUSED_STREAM, False), (ErrorCodes.CANCEL, True)]
)
def test_reset_says_whether_a_request_was_sent(pair, code, is_sent):
    answered = ask(pair)
    pair.peer.await_requests(1)
    pair.peer.send(RstStreamFrame(1, code))
    with pytest.raises(rpc.Status) as failed:
        answered.result(SECONDS)
    assert failed.value.code == rpc.UNAVAILABLE
    assert (failed.value.is_sent, failed.value.is_local) == (is_sent, True)


# G5
def test_closed_connection_sends_nothing(pair):
    pair.connection.close("closed")
    pair.peer.await_close()
    with pytest.raises(rpc.Status) as failed:
        ask(pair).result(SECONDS)
    assert (failed.value.is_sent, failed.value.is_local) == (False, True)
    with pytest.raises(rpc.Status) as failed:
        open_stream(pair)
    assert (failed.value.is_sent, failed.value.is_local) == (False, True)
    assert not any(isinstance(event, RequestReceived) for event in pair.peer.seen)


def test_cancelled_call_tells_the_node(pair):
    answered = ask(pair)
    pair.peer.await_requests(1)
    answered.cancel()
    assert pair.peer.await_event(StreamReset).error_code == ErrorCodes.CANCEL


def test_responses_come_one_at_a_time(pair):
    messages = open_stream(pair)
    pair.peer.await_requests(1)
    sent = enveloped(b"one") + enveloped(b"") + enveloped(b"three")
    pair.peer.send(
        pair.peer.headers(1, [(":status", "200")]),
        DataFrame(1, sent[:9]),
        DataFrame(1, sent[9:]),
        pair.peer.headers(1, [("grpc-status", "0")], "END_STREAM"),
    )
    received = [messages.receive().result(SECONDS) for _ in range(5)]
    assert received == [b"one", b"", b"three", None, None]


def test_broken_stream_says_so_behind_its_responses(pair):
    messages = open_stream(pair)
    pair.peer.await_requests(1)
    pair.peer.send(
        pair.peer.headers(1, [(":status", "200")]),
        DataFrame(1, enveloped(b"one") + enveloped(b"two")[:-1]),
        pair.peer.headers(1, [("grpc-status", "0")], "END_STREAM"),
    )
    assert messages.receive().result(SECONDS) == b"one"
    with pytest.raises(rpc.Status, match="cut short"):
        messages.receive().result(SECONDS)


def test_responses_that_nobody_asks_for_take_room(pair):
    message = b"x" * (1 << 20)
    messages = open_stream(pair)
    pair.peer.await_requests(1)
    peer = pair.peer.h2
    peer.send_headers(1, [(":status", "200")])
    sending = bytearray(enveloped(message) * 4)

    def send_more():
        while sending and (room := peer.local_flow_control_window(1)):
            size = min(room, peer.max_outbound_frame_size, len(sending))
            peer.send_data(1, bytes(sending[:size]))
            pair.peer.flush()
            del sending[:size]

    send_more()
    whole = len(enveloped(message) * 4)
    assert whole - len(sending) == STREAM_WINDOW_BYTES
    # What has not come in full is no message yet; those that are read make room for the others.
    for _ in range(4):
        received = messages.receive()
        wait_until(
            lambda received=received: received.done() or (pair.peer.read() and send_more()),
            "a message is here",
        )
        assert received.result() == message
    wait_until(lambda: not sending or (pair.peer.read() and send_more()), "all is sent")
    messages.cancel()
    pair.peer.await_event(StreamReset)


def test_cancelled_stream_ends_who_waits(pair):
    messages = open_stream(pair)
    pair.peer.await_requests(1)
    waiting = messages.receive()
    messages.cancel()
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    assert pair.peer.await_event(StreamReset).error_code == ErrorCodes.CANCEL
