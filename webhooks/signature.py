"""Whether Stripe signed a delivery, with a secret of ours, just now.

``Stripe-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>…]``; the signature is HMAC-SHA256 over
``<t>.<raw body>`` with the endpoint's secret. While a secret is rolled Stripe signs with both.
stripe-python's own check decodes the body first and lets future timestamps pass, hence this one.
"""

import hmac
from collections.abc import Sequence
from typing import NamedTuple

TOLERANCE_SECONDS = 300
# Stripe sends two while a secret is rolled; more than this is somebody trying their luck.
MAX_SIGNATURES = 8
MAX_TIMESTAMP_DIGITS = 12


class NotSigned(Exception):
    """The delivery cannot be believed; the message says why in one sentence."""


def verify(body: bytes, header: bytes, secrets: Sequence[bytes], now: float) -> None:
    """Return when *header* signs *body* with one of *secrets* within five minutes of *now*.

    *now* is in seconds since 1970. Raises NotSigned. Every secret is tried against every signature,
    also for a header that cannot be right, so that the time taken tells a forger nothing.
    """
    given = _parse(header)
    payload = given.timestamp + b"." + body
    digests = [hmac.digest(secret, payload, "sha256").hex().encode() for secret in secrets]
    matches = [hmac.compare_digest(d, v1) for d in digests for v1 in given.signatures]
    if not any(matches):
        raise NotSigned("The Stripe-Signature header does not sign this body with a known secret.")
    if abs(now - int(given.timestamp)) > TOLERANCE_SECONDS:
        raise NotSigned(
            f"The signature's timestamp is more than {TOLERANCE_SECONDS} seconds from this clock."
        )


class _Given(NamedTuple):
    timestamp: bytes
    signatures: list[bytes]


def _parse(header: bytes) -> _Given:
    pairs = [item.partition(b"=") for item in header.split(b",")]
    timestamps = [value for name, _, value in pairs if name == b"t"]
    signatures = [value for name, _, value in pairs if name == b"v1"]
    if len(timestamps) != 1 or not _is_seconds(timestamps[0]):
        return _Given(b"", [])
    return _Given(timestamps[0], signatures[:MAX_SIGNATURES])


def _is_seconds(text: bytes) -> bool:
    return text.isdigit() and len(text) <= MAX_TIMESTAMP_DIGITS
