"""The generated messages load, on every protobuf that we say they load on.

The environments of scripts/test-python have one protobuf each, and this file runs in all of them.
"""

from __future__ import annotations

import importlib
import pkgutil

import google.protobuf
import pytest

import holdfast._wire as wire
from holdfast._wire import common_pb2, stm_pb2
from tests.support.scale import report

NAMES = [module.name for module in pkgutil.iter_modules(wire.__path__)]


def test_protobuf_is_one_that_we_support() -> None:
    """B1: 5.29 to 7."""
    major, minor = map(int, google.protobuf.__version__.split(".")[:2])
    assert (5, 29) <= (major, minor) < (8, 0)
    report(f"messages load with protobuf {major}.{minor}", f"{len(NAMES)} files")


@pytest.mark.parametrize("name", NAMES)
def test_definitions_lie_in_the_package(name: str) -> None:
    """B1: no module ``holdfast.v1`` beside ours."""
    module = importlib.import_module(f"holdfast._wire.{name}")
    assert module.DESCRIPTOR.package == "holdfast.v1"
    for message in module.DESCRIPTOR.message_types_by_name:
        assert getattr(module, message)().SerializeToString() == b""


def test_a_message_comes_back_as_it_was() -> None:
    request = stm_pb2.CommitRequest(
        context=common_pb2.WriteContext(session_id=7, seq=2**64 - 1),
        namespace="default",
        writes=[stm_pb2.VariableWrite(key=b"\0k", codec=stm_pb2.CODEC_JSON, value=b"1")],
    )
    again = stm_pb2.CommitRequest.FromString(request.SerializeToString())
    assert again == request
    assert again.context.seq == 2**64 - 1
    assert not again.comparisons
