"""The calls of the engine are those of the definitions: no generated stub says so."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool

from holdfast._engine import calls
from holdfast._engine.calls import Call, ExchangeCall, StreamCall

NAMED = {name: call for name, call in vars(calls).items() if isinstance(call, calls._Rpc)}
STREAMS = {Call: (False, False), StreamCall: (False, True), ExchangeCall: (True, True)}


@pytest.mark.parametrize("name", NAMED)
def test_a_call_is_as_it_is_defined(name: str) -> None:
    call = NAMED[name]
    service = descriptor_pool.Default().FindServiceByName(f"holdfast.v1.{call.service}")
    method = service.methods_by_name[call.name]
    assert method.input_type is call.request.DESCRIPTOR
    assert method.output_type is call.response.DESCRIPTOR
    assert (method.client_streaming, method.server_streaming) == STREAMS[type(call)]
    assert call.path == f"/{service.full_name}/{method.name}"


def test_no_call_is_named_twice() -> None:
    assert len({call.path for call in NAMED.values()}) == len(NAMED) > 0
