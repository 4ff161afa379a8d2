"""A connection against a server that says exactly what a test tells it to (RFC 9113)."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    PingAckReceived,
    PingReceived,
    RequestReceived,
    SettingsAcknowledged,
    StreamReset,
    WindowUpdated,
)
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from holdfast._engine import http2, rpc, task
from holdfast._engine.h2_client import (
    CONNECTION_WINDOW_BYTES,
    FRAME_BYTES_MAX,
    HEADERS_BYTES_MAX,
    STREAM_WINDOW_BYTES,
)
from holdfast._engine.http2 import Fault
from tests.support.cluster import wait_until
from tests.support.peer import connected
from tests.support.scale import bound, scale

GET = rpc.Headers("n1:7480", "holdfast-python").block("/holdfast.v1.State/Get", 9.9)
SECONDS = 10.0


class Taker:
    """Takes in a response; gives room back as it comes, unless told not to."""

    def __init__(self, consumes=True):
        self.consumes = consumes
        self.fields = []
        self.data = bytearray()
        self.ends = []
        self.end = Future()

    def on_headers(self, fields):
        self.fields += fields

    def on_data(self, stream, data):
        self.data += data
        if self.consumes:
            stream.consumed(len(data))

    def on_end(self, fault):
        self.ends.append(fault)
        task.settle(self.end, fault)

    def fault(self):
        """How it ended."""
        return self.end.result(SECONDS)


def call(pair, body=b"", **options):
    taker = Taker(**options)
    stream = pair.connection.open(GET, taker, body)
    assert stream is not None
    return taker, stream


def test_answer_comes_in_order_and_ends_once(pair):
    taker, stream = call(pair, b"question")
    pair.peer.await_requests(1)
    pair.peer.answer(stream.id, b"answer")
    assert taker.fault() is None
    assert taker.fields == [(b":status", b"200"), (b"grpc-status", b"0")]
    assert bytes(taker.data) == b"answer"
    assert b"".join(e.data for e in pair.peer.seen if isinstance(e, DataReceived)) == b"question"
    pair.connection.close("closed")
    pair.peer.await_close()
    assert taker.ends == [None]


# G5: only what was certainly never looked at may be sent elsewhere without a mark.
@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (ErrorCodes.REFUSED_STREAM, Fault("the stream was reset (HTTP/2 error 7)", True)),
        (ErrorCodes.CANCEL, Fault("the stream was reset (HTTP/2 error 8)")),
        (ErrorCodes.INTERNAL_ERROR, Fault("the stream was reset (HTTP/2 error 2)")),
        (0xFACE, Fault("the stream was reset (HTTP/2 error 64206)")),
        # Of use only behind a whole answer, and this one lacks its status.
        (ErrorCodes.NO_ERROR, None),
    ],
)
def test_reset_says_whether_the_stream_was_looked_at(pair, code, fault):
    refused, stream = call(pair)
    other, other_stream = call(pair)
    pair.peer.await_requests(2)
    pair.peer.send(RstStreamFrame(stream.id, int(code)))
    assert refused.fault() == fault
    pair.peer.answer(other_stream.id)
    assert other.fault() is None
    assert pair.connection.is_open


# G5
def test_goaway_ends_what_is_above_and_lets_the_rest_go_on(pair):
    calls = [call(pair, b"x" * 10) for _ in range(3)]
    unsent, unsent_stream = call(pair, b"x" * 70_000)  # more than the window of 65,535
    pair.peer.await_requests(3)
    pair.peer.await_event(RequestReceived, stream_id=unsent_stream.id)
    first, second, third = (taker for taker, _ in calls)
    # In one piece: it must not swallow the answer to the ping, nor that to the first call.
    pair.peer.send(
        PingFrame(0, b"12345678"),
        GoAwayFrame(0, last_stream_id=3),
        *pair.peer.response(1, b"one"),
    )
    for never in (third, unsent):
        assert never.fault() == Fault("the node is going away", is_unprocessed=True)
    assert first.fault() is None
    assert bytes(first.data) == b"one"
    assert not pair.connection.is_open
    assert pair.connection.open(GET, Taker(), b"") is None
    assert not second.end.done()
    pair.peer.await_event(PingAckReceived)
    pair.peer.send(*pair.peer.response(5, b"to nobody"), *pair.peer.response(3, b"two"))
    assert second.fault() is None
    assert bytes(second.data) == b"two"
    # And then there is no more use of it.
    pair.peer.await_close()
    assert [taker.ends for taker in (first, second)] == [[None], [None]]
    assert [len(taker.ends) for taker in (third, unsent)] == [1, 1]


def test_graceful_goaway_says_twice_what_it_takes(pair):
    (first, _), (second, _) = call(pair), call(pair)
    pair.peer.await_requests(2)
    pair.peer.send(GoAwayFrame(0, last_stream_id=2**31 - 1))
    wait_until(lambda: not pair.connection.is_open, "it takes no more streams")
    assert not first.end.done()
    pair.peer.send(GoAwayFrame(0, last_stream_id=1))
    assert second.fault() == Fault("the node is going away", is_unprocessed=True)
    pair.peer.send(*pair.peer.response(1))
    assert first.fault() is None
    pair.peer.await_close()


def test_goaway_with_an_error_ends_all(pair):
    (seen, _), (unseen, _) = call(pair), call(pair)
    pair.peer.await_requests(2)
    pair.peer.send(GoAwayFrame(0, last_stream_id=1, error_code=ErrorCodes.INTERNAL_ERROR))
    assert seen.fault() == Fault("the node is going away")
    assert unseen.fault() == Fault("the node is going away", is_unprocessed=True)
    pair.peer.await_close()


def test_goaway_of_an_idle_connection_closes_it(pair):
    pair.peer.send(GoAwayFrame(0, last_stream_id=0))
    pair.peer.await_close()
    assert pair.connection.open(GET, Taker(), b"") is None


def test_streams_wait_for_a_free_one(pair):
    pair.peer.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    pair.peer.flush()
    pair.peer.await_event(SettingsAcknowledged, 2)
    first, stream = call(pair, b"1")
    (second, second_stream), (third, third_stream) = call(pair, b"2"), call(pair, b"3")
    cancelled, cancelled_stream = call(pair, b"4")
    cancelled_stream.cancel()
    pair.peer.await_requests(1)
    assert (stream.id, second_stream.id) == (1, 0)
    pair.peer.answer(1)
    assert first.fault() is None
    pair.peer.await_requests(2)
    assert (second_stream.id, third_stream.id) == (3, 0)
    # One that is cancelled makes room as well; and the one that never was sent is not.
    second_stream.cancel()
    pair.peer.await_requests(3)
    pair.peer.await_event(StreamReset, stream_id=3)
    pair.peer.answer(5)
    assert third.fault() is None
    assert second.ends == cancelled.ends == []
    sent = [e.data for e in pair.peer.seen if isinstance(e, DataReceived)]
    assert sent == [b"1", b"2", b"3"]


# G5
def test_streams_that_wait_were_never_looked_at(pair):
    pair.peer.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    pair.peer.flush()
    pair.peer.await_event(SettingsAcknowledged, 2)
    (sent, _), (waiting, _) = call(pair), call(pair)
    pair.peer.await_requests(1)
    pair.peer.close()
    assert sent.fault().is_unprocessed is False
    assert waiting.fault().is_unprocessed is True
    assert waiting.fault().message == sent.fault().message


# G5
def test_goaway_sends_those_elsewhere_that_wait(pair):
    pair.peer.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    pair.peer.flush()
    pair.peer.await_event(SettingsAcknowledged, 2)
    (sent, _), (waiting, _) = call(pair), call(pair)
    pair.peer.await_requests(1)
    pair.peer.send(GoAwayFrame(0, last_stream_id=2**31 - 1))
    assert waiting.fault() == Fault("the node is going away", is_unprocessed=True)
    pair.peer.answer(1)
    assert sent.fault() is None
    pair.peer.await_close()


def test_connection_that_hangs_is_noticed(monkeypatch):
    every, patience = scale(1.0, 0.2), scale(2.0, 0.4)
    monkeypatch.setattr(http2, "PROBE_SECONDS", every)
    monkeypatch.setattr(http2, "PROBE_TIMEOUT_SECONDS", patience)
    with contextlib.closing(connected()) as pair:
        taker, _ = call(pair)
        pair.peer.await_requests(1)
        # Whoever answers probes is alive, however long a call takes.
        pair.peer.await_event(PingReceived, 4)
        assert not taker.end.done()
        began = time.monotonic()
        # From here on it reads nothing.
        fault = taker.fault()
        assert fault.message.startswith("no answer to a probe")
        assert not fault.is_unprocessed
        assert patience <= time.monotonic() - began < bound(every + patience + 1.0)
        assert not pair.connection.is_open


def test_window_of_a_stream_is_used_up_and_given_back(pair):
    taker, stream = call(pair, consumes=False)
    pair.peer.await_requests(1)
    pair.peer.h2.send_headers(1, [(":status", "200")])
    _send_all(pair.peer, 1, STREAM_WINDOW_BYTES)
    wait_until(lambda: len(taker.data) == STREAM_WINDOW_BYTES, "all of the window is here")
    assert pair.peer.h2.streams[1].outbound_flow_control_window == 0
    # Room comes back by halves.
    stream.consumed(STREAM_WINDOW_BYTES // 2 - 1)
    stream.consumed(1)
    update = pair.peer.await_event(WindowUpdated, stream_id=1)
    assert update.delta == STREAM_WINDOW_BYTES // 2
    _send_all(pair.peer, 1, STREAM_WINDOW_BYTES // 2)
    wait_until(lambda: len(taker.data) == STREAM_WINDOW_BYTES * 3 // 2, "the rest is here")
    pair.peer.send(DataFrame(1, b"x"))
    assert taker.fault().message.startswith("the node does not speak HTTP/2: Flow control window")


def test_streams_that_nobody_reads_do_not_hold_up_others(pair):
    calls = [call(pair, consumes=False) for _ in range(5)]
    assert len(calls) * STREAM_WINDOW_BYTES > CONNECTION_WINDOW_BYTES
    pair.peer.await_requests(len(calls))
    for taker, stream in calls:
        pair.peer.h2.send_headers(stream.id, [(":status", "200")])
        _send_all(pair.peer, stream.id, STREAM_WINDOW_BYTES)
        wait_until(lambda taker=taker: len(taker.data) == STREAM_WINDOW_BYTES, "all is here")


def test_padding_takes_no_room(pair):
    taker, _ = call(pair)
    pair.peer.await_requests(1)
    pair.peer.h2.send_headers(1, [(":status", "200")])
    frames = 2 * STREAM_WINDOW_BYTES // 256
    for _ in range(frames):
        while pair.peer.h2.local_flow_control_window(1) < 257:
            pair.peer.flush()
            pair.peer.read()
        pair.peer.h2.send_data(1, b"x", pad_length=255)
    pair.peer.flush()
    wait_until(lambda: len(taker.data) == frames, "all is here")


def _send_all(peer, stream_id, size):
    """Sends so much data, as the windows allow."""
    while size:
        room = min(
            size,
            peer.h2.local_flow_control_window(stream_id),
            peer.h2.max_outbound_frame_size,
        )
        if room:
            peer.h2.send_data(stream_id, b"x" * room)
            peer.flush()
            size -= room
        else:
            peer.read()


def test_body_waits_for_the_windows_of_the_server(pair):
    body = random.Random(0).randbytes(200_000)
    taker = Taker()
    stream = pair.connection.open(GET, taker, None)
    taken = Future()
    stream.send(body, is_last=False, taken=lambda: taken.set_result(None))

    def received():
        return b"".join(e.data for e in pair.peer.seen if isinstance(e, DataReceived))

    wait_until(lambda: pair.peer.read() and len(received()) >= 65_535, "a window is sent")
    # One more byte of room is one more byte.
    pair.peer.h2.increment_flow_control_window(1)
    pair.peer.h2.increment_flow_control_window(1, 1)
    pair.peer.flush()
    wait_until(lambda: pair.peer.read() and len(received()) >= 65_536, "a byte is sent")
    assert len(received()) == 65_536
    assert not taken.done()
    # The connection's window by an update, then the stream's by a setting.
    pair.peer.h2.increment_flow_control_window(300_000)
    pair.peer.flush()
    pair.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 300_000})
    pair.peer.flush()
    wait_until(lambda: pair.peer.read() and len(received()) >= len(body), "all is sent")
    assert received() == body
    taken.result(SECONDS)
    longest = max(len(e.data) for e in pair.peer.seen if isinstance(e, DataReceived))
    assert longest == 16_384
    stream.send(b"", is_last=True)
    pair.peer.await_requests(1)
    pair.peer.answer(1)
    assert taker.fault() is None


def test_slow_socket_gets_all_in_order(pair):
    pair.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 8 << 20})
    pair.peer.h2.increment_flow_control_window(8 << 20)
    pair.peer.flush()
    pair.peer.await_event(SettingsAcknowledged, 2)
    body = random.Random(1).randbytes(4 << 20)
    taker, _ = call(pair, body)
    pair.peer.await_requests(1)
    assert b"".join(e.data for e in pair.peer.seen if isinstance(e, DataReceived)) == body
    pair.peer.answer(1)
    assert taker.fault() is None


def _padded(size, encoder):
    """A block of headers that count so many bytes (RFC 9113, 6.5.2)."""
    counted = sum(len(text) for text in (":status", "200", "a")) + 2 * 32
    return encoder.encode([(":status", "200"), ("a", "x" * (size - counted))], huffman=False)


def test_longest_headers_and_one_more_byte(pair):
    (fits, _), (too_long, _) = call(pair), call(pair)
    pair.peer.await_requests(2)
    for stream_id, size in ((1, HEADERS_BYTES_MAX), (3, HEADERS_BYTES_MAX + 1)):
        block = _padded(size, pair.peer.encoder)
        # In pieces, as such long ones come.
        pair.peer.send(
            HeadersFrame(stream_id, block[:9000]),
            ContinuationFrame(stream_id, block[9000:20_000]),
            ContinuationFrame(stream_id, block[20_000:], flags=["END_HEADERS"]),
        )
        wait_until(lambda: fits.fields, "the headers that fit are here")
    assert "header block" in too_long.fault().message
    assert not fits.fault().is_unprocessed
    pair.peer.await_close()


def test_headers_that_never_end_are_cut_off(pair):
    taker, _ = call(pair)
    pair.peer.await_requests(1)
    pair.peer.send(HeadersFrame(1, b""), *[ContinuationFrame(1, b"")] * 65)
    assert "continuation" in taker.fault().message


def test_longest_frame_and_one_more_byte(pair):
    taker, _ = call(pair)
    pair.peer.await_requests(1)
    longest = DataFrame(1, b"x" * FRAME_BYTES_MAX)
    pair.peer.send(pair.peer.headers(1, [(":status", "200")]), longest)
    wait_until(lambda: len(taker.data) == FRAME_BYTES_MAX, "the longest frame is here")
    pair.peer.send(DataFrame(1, b"x" * (FRAME_BYTES_MAX + 1)))
    assert "overlong frame" in taker.fault().message


def test_late_frames_of_a_cancelled_stream_harm_nobody(pair):
    gone, stream = call(pair)
    pair.peer.await_requests(1)
    stream.cancel()
    other, _ = call(pair)
    # These cross with the cancellation, and the other headers are coded with what they bring.
    named = [(":status", "200"), ("x-name", "value")]
    late = [pair.peer.headers(1, named), DataFrame(1, b"late")]
    late.append(pair.peer.headers(1, [("x-late", "trailer")], "END_STREAM"))
    pair.peer.send(*late, pair.peer.headers(3, [*named, ("x-late", "trailer")], "END_STREAM"))
    assert other.fault() is None
    assert (b"x-late", b"trailer") in other.fields
    assert gone.fields == gone.ends == []
    assert pair.connection.is_open


def test_handler_that_cancels_is_told_no_more(pair):
    taker, stream = call(pair)
    taker.on_headers = lambda _: stream.cancel()
    other, _ = call(pair)
    pair.peer.await_requests(2)
    pair.peer.send(*pair.peer.response(1, b"data"), *pair.peer.response(3))
    assert other.fault() is None
    assert (bytes(taker.data), taker.ends) == (b"", [])


def test_windows_survive_data_of_cancelled_streams(pair):
    for _ in range(scale(10, 5)):
        taker, stream = call(pair, consumes=False)
        pair.peer.await_event(RequestReceived, stream_id=stream.id)
        pair.peer.h2.send_headers(stream.id, [(":status", "200")])
        _send_all(pair.peer, stream.id, STREAM_WINDOW_BYTES)
        wait_until(lambda taker=taker: taker.data, "some of it is here")
        stream.cancel()
        pair.peer.await_event(StreamReset, stream_id=stream.id)
    taker, stream = call(pair)
    pair.peer.await_event(RequestReceived, stream_id=stream.id)
    pair.peer.answer(stream.id, b"x" * 16_384)
    assert taker.fault() is None


@pytest.mark.parametrize("resets", [False, True], ids=["answer", "answer-and-reset"])
def test_answer_before_all_of_the_request_is_enough(pair, resets):
    taker = Taker()
    stream = pair.connection.open(GET, taker, b"x" * 100_000, is_last=False)
    taken = Future()
    stream.send(b"more", is_last=False, taken=lambda: taken.set_result(None))
    pair.peer.await_event(RequestReceived)
    # RFC 9113, 8.1: a server may then say that it wants no more.
    reset = [RstStreamFrame(1, ErrorCodes.NO_ERROR)] if resets else []
    pair.peer.send(*pair.peer.response(1, b"enough"), *reset)
    assert taker.fault() is None
    taken.result(SECONDS)
    assert bytes(taker.data) == b"enough"
    told = Future()
    stream.send(b"in vain", is_last=True, taken=lambda: told.set_result(None))
    told.result(SECONDS)
    if not resets:
        reset = pair.peer.await_event(StreamReset)
        assert reset.error_code == ErrorCodes.CANCEL
    other, _ = call(pair)
    pair.peer.await_requests(1)
    pair.peer.send(*pair.peer.response(3))
    assert other.fault() is None


def test_room_for_a_stream_that_is_reset_at_once_is_not_used(pair):
    taker, _ = call(pair, b"x" * 100_000)
    pair.peer.await_event(DataReceived, 4)
    pair.peer.send(
        WindowUpdateFrame(0, 100_000), WindowUpdateFrame(1, 100_000), RstStreamFrame(1, 8)
    )
    assert taker.fault() == Fault("the stream was reset (HTTP/2 error 8)")
    assert pair.connection.is_open


def test_closing_tells_all_streams(pair):
    takers = [call(pair)[0] for _ in range(3)]
    pair.peer.await_requests(3)
    pair.connection.close("the client was closed")
    assert [taker.fault() for taker in takers] == [Fault("the client was closed")] * 3
    pair.peer.await_close()


def test_damaged_frames_never_leave_a_call_without_an_end(caplog):
    randoms = random.Random(os.environ.get("HOLDFAST_SEED", "7"))
    for _ in range(scale(1000, 60)):
        pair = connected()
        taker, _ = call(pair, b"x" * 10)
        frames = bytearray(
            b"".join(frame.serialize() for frame in pair.peer.response(1, b"answer"))
        )
        for _ in range(randoms.randint(1, 4)):
            frames[randoms.randrange(len(frames))] = randoms.randrange(256)
        pair.peer.await_event(RequestReceived)
        pair.peer.send_bytes(bytes(frames))
        pair.peer.close()
        taker.fault()
        assert len(taker.ends) == 1
        wait_until(lambda pair=pair: pair.socket.fileno() < 0, "the socket is closed")
    assert not caplog.records


def test_last_id_ends_a_connection_in_order(pair):
    # As if the others had been used up.
    pair.connection._h2.highest_outbound_stream_id = 2**31 - 3
    taker, stream = call(pair)
    assert stream.id == 2**31 - 1
    assert pair.connection.open(GET, Taker(), b"") is None
    pair.peer.await_requests(1)
    pair.peer.answer(stream.id)
    assert taker.fault() is None
    pair.peer.await_close()


def test_handler_that_fails_does_not_stop_others(pair, caplog):
    failing, _ = call(pair)
    failing.on_headers = None
    other, _ = call(pair)
    pair.peer.await_requests(2)
    pair.peer.send(*pair.peer.response(1), *pair.peer.response(3))
    assert other.fault() is None
    assert failing.fault() is None
    assert "handler of a stream failed" in caplog.text


def test_threads_share_a_connection(pair):
    calls = scale(200, 50)
    server = threading.Thread(target=_echo, args=(pair.peer, 8 * calls), daemon=True)
    server.start()

    def ask(n):
        for i in range(calls):
            text = b"%d of %d " % (i, n) * 10
            taker, _ = call(pair, text)
            assert taker.fault() is None
            assert bytes(taker.data) == text

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))
    server.join(SECONDS)
    assert not server.is_alive()


def _echo(peer, calls):
    bodies = {}
    while calls:
        for event in peer.read():
            if isinstance(event, DataReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                peer.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_ended:
                    peer.answer(event.stream_id, bodies.pop(event.stream_id))
                    calls -= 1
