"""The frames of graphql-transport-ws that a client may send, read strictly.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from typing import Annotated, Any

import msgspec

from gateway.graphql.request_params import Params

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Payload = dict[str, Any] | None


class Frame(msgspec.Struct, tag_field="type"):
    """Anything that a client may send."""


class ConnectionInit(Frame, tag="connection_init"):
    """The first frame; its payload carries ``Authorization``."""

    payload: Payload = None


class Ping(Frame, tag="ping"):
    """Asks for a pong."""

    payload: Payload = None


class Pong(Frame, tag="pong"):
    """Answers a ping, or says unasked that the client is alive."""

    payload: Payload = None


class Subscribe(Frame, tag="subscribe"):
    """Starts an operation under an id of the client's."""

    id: Id
    payload: Params


class Complete(Frame, tag="complete"):
    """Ends an operation."""

    id: Id


frames: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(
    ConnectionInit | Ping | Pong | Subscribe | Complete
)
