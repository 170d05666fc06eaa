"""Verifies the signature and timestamp of a Stripe delivery.

``Stripe-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>…]``; the signature is HMAC-SHA256 over
``<t>.<raw body>`` with the endpoint's secret. While a secret is rolled Stripe signs with both.
stripe-python's own check decodes the body first and accepts future timestamps; this one does neither.
"""

import hmac
from collections.abc import Sequence
from typing import NamedTuple

TOLERANCE_SECONDS = 300
# Stripe sends two while a secret is rolled; more than eight signatures is treated as abuse.
MAX_SIGNATURES = 8
MAX_TIMESTAMP_DIGITS = 12


class InvalidSignature(Exception):
    """The delivery is not authentic; the message gives the reason in one sentence."""


def verify(body: bytes, header: bytes, secrets: Sequence[bytes], now: float) -> None:
    """Return when *header* signs *body* with one of *secrets* within five minutes of *now*.

    *now* is in seconds since 1970. Raises InvalidSignature. Every secret is tried against every
    signature, also for a malformed header, so that the time taken reveals nothing to a forger.
    """
    signed = _parse(header)
    payload = signed.timestamp + b"." + body
    digests = [hmac.digest(secret, payload, "sha256").hex().encode() for secret in secrets]
    matches = [hmac.compare_digest(d, v1) for d in digests for v1 in signed.signatures]
    if not any(matches):
        raise InvalidSignature(
            "The Stripe-Signature header does not sign this body with a known secret."
        )
    if abs(now - int(signed.timestamp)) > TOLERANCE_SECONDS:
        raise InvalidSignature(
            f"The signature's timestamp is more than {TOLERANCE_SECONDS} seconds from this clock."
        )


class _SignatureHeader(NamedTuple):
    timestamp: bytes
    signatures: list[bytes]


def _parse(header: bytes) -> _SignatureHeader:
    pairs = [item.partition(b"=") for item in header.split(b",")]
    timestamps = [value for name, _, value in pairs if name == b"t"]
    signatures = [value for name, _, value in pairs if name == b"v1"]
    if len(timestamps) != 1 or not _is_seconds(timestamps[0]):
        return _SignatureHeader(b"", [])
    return _SignatureHeader(timestamps[0], signatures[:MAX_SIGNATURES])


def _is_seconds(text: bytes) -> bool:
    return text.isdigit() and len(text) <= MAX_TIMESTAMP_DIGITS
