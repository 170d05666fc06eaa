"""One result a key: kept for a day, replayed for the same request, refused for another."""

import base64
import zlib
from hashlib import blake2b
from itertools import islice
from typing import Final

import orjson

from sandbox.account import Unit
from sandbox.errors import StripeError, refuse
from sandbox.forms import Params

DAY: Final = 24 * 3600
MAX_KEY: Final = 255


class Keys:
    """The results of requests that had an Idempotency-Key, and the keys now being worked on."""

    def __init__(self) -> None:
        self._running: set[str] = set()

    def recall(self, unit: Unit, key: str, request: str) -> tuple[int, bytes, str] | None:
        """Return the stored (status, body, original request id) and None for a new key.

        StripeError 400 if the key belongs to another request, 409 while its request runs.
        """
        if len(key) > MAX_KEY:
            raise refuse("Idempotency keys have at most 255 characters.")
        if key in self._running:
            raise StripeError(
                409,
                f"There is currently another in-progress request using this Idempotent Key: {key}.",
                type="idempotency_error",
                code="idempotency_key_in_use",
            )
        stored = unit.find("keys", key)
        if stored is None or stored["at"] + DAY <= unit.now:
            return None
        if stored["request"] != request:
            raise refuse(
                "Keys for idempotent requests can only be used with the same parameters they were "
                f"first used with: {key}.",
                type="idempotency_error",
            )
        body = zlib.decompress(base64.b64decode(stored["body"]))
        return stored["status"], body, stored["id_of_first"]

    def begin(self, key: str) -> None:
        """Note that the key's request runs."""
        self._running.add(key)

    def end(self, key: str) -> None:
        """Note that it runs no longer."""
        self._running.discard(key)

    @staticmethod
    def keep(unit: Unit, request: str, status: int, body: bytes) -> None:
        """Store the result in the same commit as the work."""
        if unit.key is None:
            return
        packed = base64.b64encode(zlib.compress(body, 1)).decode()
        result = {"id": unit.key, "at": unit.now, "request": request, "status": status}
        unit.put("keys", result | {"body": packed, "id_of_first": unit.request})


def fingerprint(method: str, path: str, params: Params) -> str:
    """Return a digest of what was asked, whatever the order it was written in."""
    asked = orjson.dumps([method, path, params], option=orjson.OPT_SORT_KEYS)
    return blake2b(asked, digest_size=12).hexdigest()


def prune(unit: Unit, most: int = 1000) -> None:
    """Forget results older than a day, oldest first, *most* at a time."""
    rows = unit.account.state.rows["keys"]
    for key, stored in list(islice(rows.items(), most)):
        if stored["at"] + DAY > unit.now:
            break
        unit.drop("keys", key)
