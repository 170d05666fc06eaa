"""Token verification: valid claims, invalid tokens, and rotating keys."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.auth.jwks import JwksClient
from gateway.auth.tokens import LEEWAY, TokenVerifier, connection_deadline
from gateway.http.errors import HttpError
from resolvers.context import Role
from tests.support.gateway_server import serve
from tests.support.wait import wait_until

SECRET = "a-secret-for-the-tests-only-0123456789"
TOKENS = TokenVerifier(SECRET, None)


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a valid token, with some *changed*; None leaves a claim out."""
    good = {
        "sub": "user-1",
        "role": "customer",
        "customers": ["cus_1", "cus_2"],
        "aud": "fly-billing",
        "exp": int(time.time()) + 60,
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def bearer(
    key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **changed: Any
) -> str:
    """Return an Authorization header's value."""
    headers = {"kid": kid} if kid else None
    return "Bearer " + jwt.encode(claims(**changed), key, algorithm, headers)


async def rejection_status(tokens: TokenVerifier, authorization: object) -> int:
    """Return the status with which *authorization* is rejected."""
    with pytest.raises(HttpError) as raised:
        await tokens.verify(authorization)
    return raised.value.status


async def test_valid_token_yields_the_viewer() -> None:
    """Subject, role, customers and expiry."""
    viewer = await TOKENS.verify(bearer(exp=2_000_000_000))

    assert ("user-1", Role.CUSTOMER, {"cus_1", "cus_2"}) == (
        viewer.subject,
        viewer.role,
        viewer.customers,
    )
    assert viewer.expires_at == 2_000_000_000


@pytest.mark.parametrize("role", ["support", "metering"])
async def test_customers_claim_is_ignored_for_staff_and_services(role: str) -> None:
    """It does not restrict what they may see."""
    viewer = await TOKENS.verify(bearer(role=role))

    assert (Role(role), frozenset()) == (viewer.role, viewer.customers)


async def test_tokens_of_one_person_are_one_caller() -> None:
    """A new login, or another name for the token, is no second allowance; another role or person is one."""
    one = await TOKENS.verify(bearer(sub="a", jti="1"))
    again = await TOKENS.verify(bearer(sub="a", jti="2", exp=2_000_000_000))
    others = [
        await TOKENS.verify(bearer(sub="b", jti="1")),
        await TOKENS.verify(bearer(sub="a", customers=["cus_9"])),
        await TOKENS.verify(bearer(sub="a", role="support")),
        await TOKENS.verify(bearer(sub="\ud800")),
    ]

    assert one.person == again.person
    assert len({viewer.person for viewer in (one, *others)}) == 5
    assert one.person != "a"


async def test_people_of_the_same_customers_share_one_identity() -> None:
    """Whatever the order in which their tokens name them; Support and services stand for themselves."""
    customers = [["cus_1", "cus_2"], ["cus_2", "cus_1"], ["cus_1"]]
    one, same, other = [
        await TOKENS.verify(bearer(sub=f"user-{number}", customers=named))
        for number, named in enumerate(customers)
    ]
    agent = await TOKENS.verify(bearer(role="support"))

    assert one.caller == same.caller != other.caller
    assert one.person != same.person
    assert agent.caller == agent.person


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "another-service"},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": int(time.time()) - 3600},
        {"nbf": int(time.time()) + 3600},
        {"sub": None},
        {"role": None},
        {"role": "admin"},
        {"role": ["support"]},
        {"customers": None},
        {"customers": "cus_1"},
        {"customers": [1]},
    ],
)
async def test_invalid_claims_are_rejected(changed: dict[str, Any]) -> None:
    """401 for each; a token for another service is not valid here."""
    assert await rejection_status(TOKENS, bearer(**changed)) == 401


@pytest.mark.parametrize(
    "authorization",
    [
        None, 7, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer a.b.c", "Bearer " + "x" * 10_000,
        bearer("another-secret-of-the-same-length-00000"), bearer(SECRET * 2, "HS512"),
        "Bearer " + jwt.encode(claims(), None, "none"), bearer()[:-4], "Bearer ...", "Bearer \x00",
    ],
)  # fmt: skip
async def test_malformed_tokens_are_rejected(authorization: object) -> None:
    """Any text, and unsigned tokens."""
    assert await rejection_status(TOKENS, authorization) == 401


async def test_leeway_accepts_just_expired_token() -> None:
    """A stream opened within the leeway lasts as long as the leeway."""
    expired = time.time() - LEEWAY + 2

    viewer = await TOKENS.verify(bearer(exp=int(expired)))

    assert connection_deadline(viewer) == int(expired) + LEEWAY


async def test_connection_deadline_is_the_token_expiry() -> None:
    """To the second."""
    soon = int(time.time()) + 30

    assert soon == connection_deadline(await TOKENS.verify(bearer(exp=soon)))


class Issuer:
    """An issuer with a JWKS; it can rotate keys, go down and respond with garbage."""

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKeyTypes] = {}
        self.fetches = 0
        self.up = True
        self.responding = asyncio.Event()
        self.responding.set()
        self.response_body: str | None = None
        self.extra: list[dict[str, Any]] = []
        self.stream: Callable[[], AsyncIterator[bytes]] | None = None
        self.app = Starlette(routes=[Route("/jwks", self._answer)])
        self.address = ""
        self.client = httpx.AsyncClient()

    def verifier(self, **options: Any) -> TokenVerifier:
        """Return a verifier that trusts this issuer and a shared secret."""
        return TokenVerifier(
            SECRET, JwksClient(f"http://{self.address}/jwks", self.client, **options)
        )

    async def _answer(self, _: Request) -> Response:
        self.fetches += 1
        await self.responding.wait()
        if self.stream is not None:
            return StreamingResponse(self.stream())
        if self.response_body is not None:
            return Response(self.response_body)
        listed = [self._jwk(kid, key) for kid, key in self.keys.items()]
        return JSONResponse({"keys": [*listed, *self.extra]}, 200 if self.up else 503)

    @staticmethod
    def _jwk(kid: str, key: Any) -> dict[str, Any]:
        is_rsa = isinstance(key, rsa.RSAPrivateKey)
        made = jwt.algorithms.RSAAlgorithm if is_rsa else jwt.algorithms.ECAlgorithm
        public = made.to_jwk(key.public_key(), as_dict=True)
        return {**public, "kid": kid, "alg": "RS256" if is_rsa else "ES256", "use": "sig"}


RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer with an RSA and an EC key, on its own server."""
    made = Issuer()
    made.keys = {"rsa-1": RSA, "ec-1": EC}
    async with made.client, serve(made.app) as made.address:
        yield made


async def test_jwks_keys_verify_and_are_fetched_once(issuer: Issuer) -> None:
    """Not once for each request."""
    tokens = issuer.verifier()

    for _ in range(3):
        assert (await tokens.verify(bearer(RSA, "RS256", "rsa-1"))).subject == "user-1"
        assert (await tokens.verify(bearer(EC, "ES256", "ec-1"))).subject == "user-1"

    assert issuer.fetches == 1


async def test_rotated_keys_are_fetched_at_once(issuer: Issuer) -> None:
    """Rotation needs no restart, and the old key is no longer valid."""
    tokens = issuer.verifier(min_refresh_interval=0)
    await tokens.verify(bearer(RSA, "RS256", "rsa-1"))

    issuer.keys = {"ec-2": EC}

    assert (await tokens.verify(bearer(EC, "ES256", "ec-2"))).subject == "user-1"
    assert await rejection_status(tokens, bearer(RSA, "RS256", "rsa-1")) == 401


async def test_unknown_key_ids_do_not_trigger_a_fetch_each(issuer: Issuer) -> None:
    """Anybody can send any `kid`; until the next fetch nobody can tell whether it is the issuer's newest."""
    tokens = issuer.verifier()

    statuses = [
        await rejection_status(tokens, bearer(RSA, "RS256", f"invented-{number}"))
        for number in range(20)
    ]

    assert statuses == [401] + [503] * 19
    assert issuer.fetches == 1


async def test_unknown_key_is_no_invalid_token_while_the_keys_cannot_be_read(
    issuer: Issuer,
) -> None:
    """A panel signs its person out after a 401; after a 503 it tries again, at the time that is named."""
    tokens = issuer.verifier(min_refresh_interval=0)
    await tokens.verify(bearer(RSA, "RS256", "rsa-1"))
    issuer.keys["ec-2"] = EC
    issuer.up = False

    with pytest.raises(HttpError) as raised:
        await tokens.verify(bearer(EC, "ES256", "ec-2"))
    assert (raised.value.status, raised.value.code) == (503, "KEYS_UNAVAILABLE")
    assert int(raised.value.headers["Retry-After"]) >= 1

    issuer.up = True
    assert (await tokens.verify(bearer(EC, "ES256", "ec-2"))).subject == "user-1"


async def test_set_of_one_key_serves_tokens_without_key_id(issuer: Issuer) -> None:
    """`kid` is optional (RFC 7515, 4.1.4); with two keys nobody can tell which is meant."""
    tokens = issuer.verifier(min_refresh_interval=0)
    assert await rejection_status(tokens, bearer(RSA, "RS256")) == 401

    issuer.keys = {"rsa-1": RSA}
    assert (await tokens.verify(bearer(RSA, "RS256"))).subject == "user-1"
    assert await rejection_status(tokens, bearer(EC, "ES256")) == 401


async def test_key_for_encryption_verifies_nothing(issuer: Issuer) -> None:
    """Its owner may have given the private half to others."""
    public = Issuer._jwk("enc-1", EC)
    issuer.keys = {"rsa-1": RSA}
    issuer.extra = [public | {"use": "enc"}]

    assert await rejection_status(issuer.verifier(), bearer(EC, "ES256", "enc-1")) == 401
    del issuer.extra[0]["use"]
    assert (await issuer.verifier().verify(bearer(EC, "ES256", "enc-1"))).subject == "user-1"


async def test_reading_keys_is_bounded_in_time_and_size(issuer: Issuer) -> None:
    """An issuer that drips or pours is one that is down, and callers with an unknown key do not wait for it."""
    for part, pause in ((b" ", 0.05), (b" " * 65_536, 0.0)):
        sent = 0

        async def pour(part: bytes = part, pause: float = pause) -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 100_000_000:
                sent += len(part)
                yield part
                await asyncio.sleep(pause)

        issuer.stream = pour
        verifier = issuer.verifier(fetch_timeout=0.3 if pause else 60)
        assert await rejection_status(verifier, bearer(RSA, "RS256", "rsa-1")) == 503
        assert sent < 50_000_000


async def test_previous_secret_is_valid_beside_the_new_one() -> None:
    """The issuer changes to the new one at its own time; without the setting the old one is nothing."""
    old = "another-secret-of-the-same-length-00000"
    tokens = TokenVerifier(SECRET, None, previous_secret=old)

    for secret in (SECRET, old):
        assert (await tokens.verify(bearer(secret))).subject == "user-1"
    assert await rejection_status(tokens, bearer("x" * 40)) == 401
    with pytest.raises(HttpError, match="expired"):
        await tokens.verify(bearer(exp=int(time.time()) - 3600))


async def test_issuer_is_checked_if_it_is_set(issuer: Issuer) -> None:
    """Keys that several services share sign for all of them; by secret or by key."""
    jwks = JwksClient(f"http://{issuer.address}/jwks", issuer.client)
    tokens = TokenVerifier(SECRET, jwks, issuer="https://fly.example")

    for key in ((SECRET, "HS256"), (RSA, "RS256", "rsa-1")):
        assert (await tokens.verify(bearer(*key, iss="https://fly.example"))).subject == "user-1"
        for wrong in ("https://fly.example/", "", None):
            assert await rejection_status(tokens, bearer(*key, iss=wrong)) == 401


DEEP = "[" * 2500 + "]" * 2500
HEADER_FIELDS = ("alg", "kid", "typ", "crit", "b64", "zip", "jwk", "x5c")
CLAIMS = ("aud", "exp", "sub", "role", "customers", "iat", "nbf", "iss", "jti")
json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3)
    ),
    max_leaves=5,
).map(json.dumps) | st.sampled_from(
    ["1e400", "-1e400", "NaN", "9" * 400, DEEP, "{", '"RS256"', '"rsa-1"']
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    field=st.sampled_from(HEADER_FIELDS + CLAIMS),
    value=json_text,
    whole=st.booleans(),
    signed_by=st.sampled_from(["HS256", "RS256", "none"]),
)
async def test_any_type_in_any_part_of_a_token_is_a_viewer_or_a_401(
    issuer: Issuer, field: str, value: str, signed_by: str, *, whole: bool
) -> None:
    """Anybody can send an unsigned token, and an issuer's mistake is no fault of ours; it is never a 500."""
    header = {"alg": signed_by, "kid": "rsa-1", "typ": "JWT"}
    parts = {"header": json.dumps(header), "payload": json.dumps(claims())}
    part = "header" if field in HEADER_FIELDS else "payload"
    fields = {name: json.dumps(known) for name, known in json.loads(parts[part]).items()}
    fields[field] = value
    text = ", ".join(f"{json.dumps(name)}: {raw}" for name, raw in fields.items())
    parts[part] = value if whole else f"{{{text}}}"
    signing_input = ".".join(_base64(parts[name].encode()) for name in ("header", "payload"))
    signature = b""
    if signed_by != "none":
        algorithm = jwt.get_algorithm_by_name(signed_by)
        key = algorithm.prepare_key(SECRET if signed_by == "HS256" else RSA)
        signature = algorithm.sign(signing_input.encode(), key)
    authorization = f"Bearer {signing_input}.{_base64(signature)}"

    for tokens in (issuer.verifier(min_refresh_interval=0), TOKENS):
        with suppress_unauthenticated():
            viewer = await tokens.verify(authorization)
            assert viewer.subject
            assert viewer.person
            assert connection_deadline(viewer) > 0


@contextmanager
def suppress_unauthenticated() -> Iterator[None]:
    """Suppress the HttpError of a token that is not valid, and no other."""
    try:
        yield
    except HttpError as error:
        if error.status != 401:
            raise


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_slow_issuer_delays_only_unknown_keys(issuer: Issuer) -> None:
    """Otherwise an invented `kid` would delay every caller."""
    tokens = issuer.verifier(min_refresh_interval=0)
    await tokens.verify(bearer(RSA, "RS256", "rsa-1"))
    issuer.responding.clear()
    invented = asyncio.create_task(rejection_status(tokens, bearer(RSA, "RS256", "invented")))
    await wait_until(lambda: issuer.fetches == 2)

    async with asyncio.timeout(2):
        for _ in range(10):
            assert (await tokens.verify(bearer(RSA, "RS256", "rsa-1"))).subject == "user-1"

    assert not invented.done()
    issuer.responding.set()
    assert await invented == 401
    assert issuer.fetches == 2


async def test_cancelled_caller_does_not_cancel_the_shared_fetch(issuer: Issuer) -> None:
    """A browser that disconnects must not end the fetch that others wait for."""
    tokens = issuer.verifier()
    issuer.responding.clear()
    first, second = [
        asyncio.create_task(tokens.verify(bearer(RSA, "RS256", "rsa-1"))) for _ in range(2)
    ]
    await wait_until(lambda: issuer.fetches == 1)

    first.cancel()
    issuer.responding.set()

    assert (await second).subject == "user-1"
    assert issuer.fetches == 1


async def test_known_keys_stay_valid_while_the_issuer_is_down(issuer: Issuer) -> None:
    """Without any key the response is 503, not 401."""
    tokens = issuer.verifier(max_age=0, min_refresh_interval=0)
    await tokens.verify(bearer(RSA, "RS256", "rsa-1"))
    issuer.up = False

    assert (await tokens.verify(bearer(RSA, "RS256", "rsa-1"))).subject == "user-1"
    assert await rejection_status(issuer.verifier(), bearer(RSA, "RS256", "rsa-1")) == 503


@pytest.mark.parametrize(
    "garbage",
    [
        *("", "<html>", "[]", "{}", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{}]}'),
        *("[" * 100_000, '{"keys": [{"kty": "RSA", "alg": []}]}', '{"keys": [{"kty": {}}]}'),
        '{"keys": [{"kty": "oct", "kid": [], "k": "AAAA"}]}',
    ],
)
async def test_invalid_jwks_keeps_the_known_keys(issuer: Issuer, garbage: str) -> None:
    """An issuer that serves a maintenance page is down, whatever its status."""
    tokens = issuer.verifier(max_age=0, min_refresh_interval=0)
    await tokens.verify(bearer(RSA, "RS256", "rsa-1"))
    issuer.response_body = garbage

    assert (await tokens.verify(bearer(RSA, "RS256", "rsa-1"))).subject == "user-1"
    assert await rejection_status(issuer.verifier(), bearer(RSA, "RS256", "rsa-1")) == 503


async def test_jwks_cannot_introduce_a_shared_secret(issuer: Issuer) -> None:
    """Algorithms belong to the keys."""
    shared = "a-secret-that-only-the-issuer-has-012345"
    issuer.extra = [
        {
            "kty": "oct",
            "kid": "oct-1",
            "alg": "HS256",
            "k": base64.urlsafe_b64encode(shared.encode()).decode(),
        }
    ]
    tokens = issuer.verifier()

    assert await rejection_status(tokens, bearer(shared, "HS256", "oct-1")) == 401
    assert await rejection_status(tokens, bearer(EC, "ES256", "rsa-1")) == 401
    assert await rejection_status(tokens, bearer(RSA, "RS512", "rsa-1")) == 401
