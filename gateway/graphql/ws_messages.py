"""Client messages of graphql-transport-ws, decoded strictly.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from enum import IntEnum
from typing import Annotated, Any

import msgspec

from gateway.graphql.request_params import RequestParams

MAX_MESSAGE_LENGTH = 262_144

OperationId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Payload = dict[str, Any] | None


class CloseCode(IntEnum):
    """Close codes of RFC 6455 (below 4000) and of graphql-transport-ws."""

    POLICY_VIOLATION = 1008
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    # A token that was rejected or has expired: clients reconnect with another one, while 4401 is final.
    FORBIDDEN = 4403
    SUBPROTOCOL_NOT_ACCEPTABLE = 4406
    INIT_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INITS = 4429
    INTERNAL_ERROR = 4500


class ClientMessage(msgspec.Struct, tag_field="type"):
    """A message from a client."""


class ConnectionInit(ClientMessage, tag="connection_init"):
    """The first message; its payload carries ``Authorization``."""

    payload: Payload = None


class Ping(ClientMessage, tag="ping"):
    """A request for a pong."""

    payload: Payload = None


class Pong(ClientMessage, tag="pong"):
    """A reply to a ping, or an unsolicited heartbeat."""

    payload: Payload = None


class Subscribe(ClientMessage, tag="subscribe"):
    """Starts an operation under an id chosen by the client."""

    id: OperationId
    payload: RequestParams


class Complete(ClientMessage, tag="complete"):
    """Stops an operation."""

    id: OperationId


_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(
    ConnectionInit | Ping | Pong | Subscribe | Complete
)


class MalformedMessage(Exception):
    """The text of a message is none of the above."""


def decode(text: str | None) -> ClientMessage:
    """Decode a text message; *text* is None for a binary one."""
    if text is None:
        raise MalformedMessage("Messages are text")
    if len(text) > MAX_MESSAGE_LENGTH:
        raise MalformedMessage("The message is too long")
    try:
        message = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(str(error)) from None
    if isinstance(message, Subscribe) and not message.payload.names_document:
        raise MalformedMessage("Subscribe with a query, or with what names a persisted one")
    return message
