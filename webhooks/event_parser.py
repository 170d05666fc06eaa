"""Reads of an event what `billing.events.effects` asks for, and passes over the rest of it, which is most.

A flood is mostly this: building all that Stripe shows of an invoice costs three times as much.
"""

from typing import Any, TypedDict

import msgspec
import orjson


class _Object(TypedDict, total=False):
    id: Any
    customer: Any
    invoice: Any
    metadata: Any


class _Data(TypedDict, total=False):
    object: _Object
    previous_attributes: _Object | None


class _Event(TypedDict, total=False):
    object: Any
    id: Any
    type: Any
    api_version: Any
    livemode: Any
    request: Any
    data: _Data
    # of a thin one
    related_object: Any
    reason: Any


_EVENT = msgspec.json.Decoder(_Event)


def skim(body: bytes) -> Any:
    """The event in *body*, of an ordinary one only what matters; orjson.JSONDecodeError when it is no JSON."""
    try:
        return _EVENT.decode(body.decode())
    except (ValueError, RecursionError):  # of another shape, or broken: this one knows which
        return orjson.loads(body)
