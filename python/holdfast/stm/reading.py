"""Reads of variables, and how long they and commits may take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holdfast._engine import calls
from holdfast._wire import common_pb2, stm_pb2
from holdfast.client import result_of

from .value import from_wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.client import Client

    from .value import Variable


class Reader:
    """What reads the variables of a namespace; safe for threads.

    Args:
        client: whose namespace and deadline are meant.
        allow_pickle: whether values that are pickles are loaded.
    """

    def __init__(self, client: Client, *, allow_pickle: bool) -> None:
        self.client = client
        self.allow_pickle = allow_pickle

    def get(
        self, keys: Sequence[bytes], deadline: float | None = None, *, local: bool = False
    ) -> tuple[int, list[Variable]]:
        """Variables by encoded key, in that order, and the revision that they are true at.

        ``deadline`` is in seconds from now. Raises Unavailable, or Refused if they are too many.
        """
        return self._get(keys, deadline, local=local, only_versions=False)

    def versions(
        self, keys: Sequence[bytes], deadline: float | None = None
    ) -> tuple[int, list[Variable]]:
        """As :meth:`get`, without what they hold."""
        return self._get(keys, deadline, local=False, only_versions=True)

    def _get(
        self, keys: Sequence[bytes], deadline: float | None, *, local: bool, only_versions: bool
    ) -> tuple[int, list[Variable]]:
        request = stm_pb2.GetVariablesRequest(
            read=common_pb2.ReadOptions(local=local),
            namespace=self.client.namespace,
            keys=keys,
            only_versions=only_versions,
        )
        response = result_of(self.client.engine.read(calls.STM_GET, request, deadline=deadline))
        found = [
            from_wire(variable, not only_versions, self.allow_pickle)
            for variable in response.variables
        ]
        return response.header.revision, found

    def listing(
        self, key_prefix: bytes, *, only_keys: bool = False
    ) -> Iterator[tuple[int, list[Variable]]]:
        """The variables whose encoded keys begin so, in order, part by part, all at one revision.

        There is at least one part, which says that revision. Raises Unavailable if the stream
        breaks, and Refused if a part was left lying for 10 s.
        """
        request = stm_pb2.ListVariablesRequest(
            namespace=self.client.namespace, key_prefix=key_prefix, only_keys=only_keys
        )
        stream = result_of(self.client.engine.stream(calls.STM_LIST, request))
        try:
            for response in stream:
                found = response.variables
                variables = [from_wire(one, not only_keys, self.allow_pickle) for one in found]
                yield response.header.revision, variables
                if response.is_last:
                    return
        finally:
            stream.cancel()


def until(seconds: float) -> float:
    """The time by the monotonic clock, so many seconds from now."""
    return time.monotonic() + seconds


def remaining(deadline: float) -> float:
    """The seconds until a time by the monotonic clock; none if it has passed."""
    return max(0.0, deadline - time.monotonic())
