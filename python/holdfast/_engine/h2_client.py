"""h2's client, set up as Holdfast's nodes are spoken to, and mended in two places.

- Streams go on after a GOAWAY (RFC 9113, 6.8). h2 by itself counts the connection as closed then,
  and throws away what was to be sent (python-hyper/h2, issue 1181).
- Frames that come in are not written out for a log that nobody keeps.

It is no more thread-safe than h2 is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings

if TYPE_CHECKING:
    from h2.events import Event
    from hyperframe.frame import Frame

STREAM_WINDOW_BYTES = 2 << 20
"""How much of one response may be on its way, in bytes: a page of values, the largest of which are
1 MiB, without waiting for a window update."""
CONNECTION_WINDOW_BYTES = 8 << 20
"""How much of all responses of a connection may be on its way, in bytes."""
FRAME_BYTES_MAX = 1 << 20
"""Longest frame that is taken in, in bytes."""
HEADERS_BYTES_MAX = 64 << 10
"""Longest headers that are taken in, in bytes; a status with its details has some hundreds."""


class H2Client(H2Connection):
    """See the module."""

    def __init__(self) -> None:
        # Headers here are sound as they are made, and of the node's only those are read that are
        # known by name.
        super().__init__(
            H2Configuration(
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self.state_machine = _StateMachine()
        self.incoming_buffer = _Frames()
        self.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES_MAX,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADERS_BYTES_MAX,
            },
        )
        # h2 looks at changes of settings only, and these are the first ones.
        self.max_inbound_frame_size = FRAME_BYTES_MAX
        self.decoder.max_header_list_size = HEADERS_BYTES_MAX

    def initiate_connection(self) -> None:
        """Begins it, and gives all of the connection's window."""
        super().initiate_connection()
        room = CONNECTION_WINDOW_BYTES - self.inbound_flow_control_window
        self.increment_flow_control_window(room)

    def clear_outbound_data_buffer(self) -> None:
        """Called at a GOAWAY: what was to be sent is for streams that go on."""


class _StateMachine(H2ConnectionStateMachine):
    """The state of the connection, which a GOAWAY does not end."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        if input_ == ConnectionInputs.RECV_GOAWAY:
            return []
        return super().process_input(input_)


class _Frames(FrameBuffer):
    """The frames that come in, which are not written out for h2's log.

    h2 does that for each of them, all of its data in hexadecimal, whether there is a log or not:
    two thirds of the processor time of a download.
    """

    def __next__(self) -> Frame:
        frame = super().__next__()
        frame.serialize_body = bytes  # type: ignore[method-assign] # what repr() shows
        return frame
