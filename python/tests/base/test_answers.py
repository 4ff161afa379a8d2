"""Statuses as nodes make them, read back: what they say of one copy, and of all others (G5)."""

from __future__ import annotations

import copy
import pickle

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from holdfast import errors
from holdfast._engine import answer, details, rpc
from holdfast._engine.answer import Fate, Reach
from holdfast.errors import Applied, Attempt, Claimant, Header, HeldBy


def _encoded(code, reason, domain, metadata):
    """An encoded ``google.rpc.Status``, made by protobuf itself."""
    made = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("test.Status"))()
    made.code, made.message = code, "what and why"
    packed = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("test.ErrorInfo"))()
    packed.reason, packed.domain = reason, domain
    for name, text in metadata.items():
        packed.metadata.add(key=name, value=text)
    other = made.details.add()
    other.type_url, other.value = "type.googleapis.com/google.rpc.DebugInfo", b"\x08\x01"
    wrapped = made.details.add()
    wrapped.type_url = "type.googleapis.com/google.rpc.ErrorInfo"
    wrapped.value = packed.SerializeToString()
    return made.SerializeToString()


def _pool():
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name, **fields):
        made = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            is_many = isinstance(kind, str)
            made.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if is_many else kinds.LABEL_OPTIONAL,
                type=kinds.TYPE_MESSAGE if is_many else kind,
                type_name=kind if is_many else None,
            )

    message("Any", type_url=kinds.TYPE_STRING, value=kinds.TYPE_BYTES)
    message("Entry", key=kinds.TYPE_STRING, value=kinds.TYPE_STRING)
    message("ErrorInfo", reason=9, domain=9, metadata=".test.Entry")
    message("Status", code=kinds.TYPE_INT32, message=kinds.TYPE_STRING, details=".test.Any")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _pool()
_METADATA = {
    "cluster_id": "c",
    "node_id": "2",
    "leader_id": "3",
    "leader_endpoint": "host:1",
    "revision": "40",
    "term": "5",
    "actual": "7",
}


def _read(code, reason, domain="holdfast", applied="no"):
    metadata = _METADATA if applied is None else {**_METADATA, "applied": applied}
    encoded = _encoded(code, reason, domain, metadata)
    return answer.read(rpc.Status(code, "what and why", encoded))


# The inverse of the node's map, reason by reason.
@pytest.mark.parametrize(
    ("code", "reason", "reach"),
    [
        (rpc.INVALID_ARGUMENT, "BAD_REQUEST", Reach.REQUEST),
        (rpc.INVALID_ARGUMENT, "NAME_TOO_LONG", Reach.REQUEST),
        (rpc.NOT_FOUND, "UNKNOWN_OBJECT", Reach.OUTCOME),
        (rpc.FAILED_PRECONDITION, "LEASE_LOST", Reach.OUTCOME),
        (rpc.FAILED_PRECONDITION, "STALE_FENCE", Reach.OUTCOME),
        (rpc.RESOURCE_EXHAUSTED, "TOO_MANY_CLAIMS", Reach.OUTCOME),
        (rpc.RESOURCE_EXHAUSTED, "TOO_MANY_WAITERS", Reach.OUTCOME),
        (rpc.RESOURCE_EXHAUSTED, "TOO_MANY_PLACES", Reach.OUTCOME),
        (rpc.RESOURCE_EXHAUSTED, "TOO_MANY_MEMBERS", Reach.OUTCOME),
        (rpc.RESOURCE_EXHAUSTED, "TOO_MANY_CREATORS", Reach.OUTCOME),
        (rpc.FAILED_PRECONDITION, "CHANGE_SOURCE_IN_USE", Reach.OUTCOME),
        (rpc.FAILED_PRECONDITION, "CREATION_LOST", Reach.OUTCOME),
        (rpc.FAILED_PRECONDITION, "VERSION_FROM_FUTURE", Reach.OUTCOME),
        (rpc.INVALID_ARGUMENT, "UNISSUED_ID", Reach.OUTCOME),
        (rpc.INVALID_ARGUMENT, "OBJECT_TOO_LARGE", Reach.REQUEST),
        (rpc.NOT_FOUND, "UNKNOWN_UPLOAD", Reach.OUTCOME),
        (rpc.RESOURCE_EXHAUSTED, "TOO_MANY_UPLOADS", Reach.OUTCOME),
        (rpc.RESOURCE_EXHAUSTED, "TRANSACTION_TOO_LARGE", Reach.REQUEST),
        (rpc.FAILED_PRECONDITION, "SESSION_EXPIRED", Reach.FORGOTTEN),
        (rpc.FAILED_PRECONDITION, "STALE_SEQ", Reach.FORGOTTEN),
        (rpc.RESOURCE_EXHAUSTED, "TOO_MANY_UNDECIDED", Reach.COPY),
        (rpc.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", Reach.COPY),
        (rpc.RESOURCE_EXHAUSTED, "QUOTA_FULL", Reach.COPY),
        (rpc.RESOURCE_EXHAUSTED, "DISK_FULL", Reach.COPY),
    ],
)
def test_every_reason_has_its_reach(code, reason, reach):
    said = _read(code, reason)
    assert said.fate == Fate.REFUSED
    assert said.reach() == reach


def test_node_that_cannot_carry_out_changes_nothing():
    for reason in ("NO_LEADER", "STOPPING", "READ_FAILED", "CHANGE_IN_PROGRESS"):
        assert _read(rpc.UNAVAILABLE, reason).fate == Fate.ELSEWHERE
    assert _read(rpc.RESOURCE_EXHAUSTED, "OVERLOADED").fate == Fate.ELSEWHERE


def test_only_applied_no_is_definite():
    for applied in (None, "unknown", "yes", ""):
        assert _read(rpc.NOT_FOUND, "UNKNOWN_OBJECT", applied=applied).fate == Fate.UNKNOWN
    foreign = _read(rpc.NOT_FOUND, "UNKNOWN_OBJECT", domain="example.org")
    assert (foreign.fate, foreign.reason) == (Fate.UNKNOWN, None)
    bare = answer.read(rpc.Status(rpc.INVALID_ARGUMENT, "from a proxy"))
    assert (bare.fate, bare.reason) == (Fate.UNKNOWN, None)
    assert answer.read(rpc.Status(rpc.UNIMPLEMENTED, "no such method")).fate == Fate.REFUSED
    late = answer.read(rpc.Status(rpc.DEADLINE_EXCEEDED, "timed out"))
    assert (late.fate, late.message) == (Fate.UNKNOWN, answer.SILENCE)
    unsent = answer.read(rpc.Status(rpc.UNAVAILABLE, "refused", is_sent=False))
    assert unsent.fate == Fate.NOT_SENT


def test_header_and_fields_come_apart():
    said = _read(rpc.NOT_FOUND, "UNKNOWN_OBJECT")
    assert said.header == Header("c", 2, 40, 5, 3, "host:1")
    assert said.fields == {"actual": "7"}
    error = said.error()
    assert isinstance(error, errors.NotFound)
    assert (str(error), error.reason, error.applied) == (
        "what and why",
        "UNKNOWN_OBJECT",
        Applied.NO,
    )


# Whatever comes over the wire, damaged or not, is at worst no details.
def test_damaged_details_are_no_details():
    sound = _encoded(5, "UNKNOWN_OBJECT", "holdfast", {"applied": "no"})
    assert details.error_info(sound).reason == "UNKNOWN_OBJECT"
    for cut in range(len(sound)):
        found = details.error_info(sound[:cut])
        assert found is None or found.reason != "UNKNOWN_OBJECT" or cut == len(sound)
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 0xFF
        details.error_info(bytes(damaged))


def test_answer_of_another_cluster_did_nothing_in_ours():
    refused = _read(rpc.NOT_FOUND, "UNKNOWN_OBJECT").in_foreign_cluster("belongs to another")
    assert (refused.fate, refused.reason) == (Fate.ELSEWHERE, "FOREIGN_CLUSTER")
    unknown = answer.read(rpc.Status(rpc.INTERNAL, "?")).in_foreign_cluster("belongs to another")
    assert (unknown.fate, unknown.reason) == (Fate.UNKNOWN, "FOREIGN_CLUSTER")
    unsent = answer.read(rpc.Status(rpc.UNAVAILABLE, "?", is_sent=False))
    assert unsent.in_foreign_cluster("belongs to another").fate == Fate.NOT_SENT


def test_error_lists_what_happened_at_each_endpoint():
    plain = errors.Unavailable("State.GetState got no answer within 1.0 s")
    assert str(plain) == "unavailable: State.GetState got no answer within 1.0 s"
    met = [Attempt("a:1", None, "no route"), Attempt("b:2", "NO_LEADER", "no leader")]
    told = errors.OutcomeUnknown("it", met)
    assert str(told) == "outcome unknown: it (a:1: no route; b:2: no leader)"
    assert (told.applied, told.has_answer) == (Applied.UNKNOWN, True)
    assert not errors.NotApplied("it", met[:1]).has_answer


# Workers of a pool send errors to their parents.
@pytest.mark.parametrize(
    "error",
    [
        errors.OutcomeUnknown("it", [Attempt("a:1", None, "no route")], Header("c")),
        errors.refused("STALE_FENCE", 9, "moved on", {"token": "7"}, Header("c", 2)),
        errors.AlreadyClaimed(Claimant(1, "one", 7, 9, 1.5), Header("c")),
        errors.LeaseHeld(HeldBy(1, "one", 9, 1.5)),
        errors.LeaseLost(applied=Applied.UNKNOWN),
    ],
)
def test_errors_are_pickled_and_copied_whole(error):
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
        assert other.applied == error.applied
