"""Signature verification, against signatures made by stripe-python."""

import time

import pytest
from stripe import WebhookSignature

from webhooks.signature import MAX_SIGNATURES, InvalidSignature, verify

BODY = b'{"id": "evt_1"}'
NOW = 1_800_000_000
OLD, NEW = "whsec_the_old_secret", "whsec_the_new_secret"
SECRETS = [OLD.encode(), NEW.encode()]


def signed(body: bytes = BODY, secret: str = NEW, at: int = NOW) -> bytes:
    """The header that Stripe would send."""
    header: str = WebhookSignature.generate_signature_header(body.decode(), secret, at)
    return header.encode()


def both() -> bytes:
    """The header of a delivery while the secret is rolled: a signature with each."""
    other = signed(secret="whsec_of_another_endpoint").partition(b",")[2]
    return signed() + b"," + other


@pytest.mark.parametrize("header", [signed(), signed(secret=OLD), both()])
def test_signature_with_any_configured_secret_is_valid(header: bytes) -> None:
    """While a secret is rolled, deliveries signed with either have to pass."""
    verify(BODY, header, SECRETS, NOW)


@pytest.mark.parametrize("drift", [-300, 300])
def test_timestamp_within_five_minutes_is_valid(drift: int) -> None:
    """Clocks differ; five minutes is Stripe's own tolerance."""
    verify(BODY, signed(), SECRETS, NOW + drift)


@pytest.mark.parametrize("drift", [-301, 301, -(10**9), 10**9])
def test_timestamp_beyond_five_minutes_is_invalid(drift: int) -> None:
    """An old delivery is a replay; one from the future could be replayed until then."""
    with pytest.raises(InvalidSignature, match="300 seconds"):
        verify(BODY, signed(), SECRETS, NOW + drift)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"t=1800000000",
        b"v1=" + b"0" * 64,
        signed(secret="whsec_a_guess"),
        signed().replace(b"v1=", b"v0="),
        signed().replace(b"t=18", b"t=19"),
        signed().replace(b"t=", b"t=x"),
        signed().replace(b"t=18", b"t=" + b"1" * 5000 + b"18"),
        signed() + b",t=1800000001",
        signed(b'{"id": "evt_2"}'),
        signed()[:-1],
        b"\xff\xfe,=,,==",
        "t=1800000000,v1=é".encode(),
    ],
)
def test_forged_or_malformed_header_is_invalid(header: bytes) -> None:
    """Without a secret nothing can be put into the inbox, and the check does not fail."""
    with pytest.raises(InvalidSignature, match="does not sign"):
        verify(BODY, header, SECRETS, NOW)


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b" ", b"", b"\xff\xfe\x00"])
def test_changed_or_truncated_body_is_invalid(body: bytes) -> None:
    """The signature covers every byte, whatever the encoding."""
    with pytest.raises(InvalidSignature):
        verify(body, signed(), SECRETS, NOW)


def test_signatures_beyond_the_maximum_are_ignored() -> None:
    """A header full of guesses costs no more than a normal one."""
    guesses = b",".join([b"v1=" + b"0" * 64] * MAX_SIGNATURES)
    honest = signed().partition(b",")[2]

    with pytest.raises(InvalidSignature):
        verify(BODY, b"t=%d,%b,%b" % (NOW, guesses, honest), SECRETS, NOW)


def test_rejection_time_reveals_nothing() -> None:
    """The time must not tell how close a guess came; with 256 KiB the hashing dominates."""
    body = b"x" * 262_144
    near = signed(body)[:-1] + b"0"
    times = {
        header: _fastest(body, header) for header in (near, signed(body, "guess"), b"nonsense")
    }

    assert max(times.values()) < 2 * min(times.values())


def _fastest(body: bytes, header: bytes) -> float:
    def once() -> float:
        begin = time.perf_counter()
        with pytest.raises(InvalidSignature):
            verify(body, header, SECRETS, NOW)
        return time.perf_counter() - begin

    return min(once() for _ in range(30))
