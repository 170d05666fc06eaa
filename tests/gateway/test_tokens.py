"""Tokens: who they prove, which ones prove nobody, and keys that rotate."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.auth.tokens import LEEWAY, KeySet, Tokens, lasts_until
from gateway.http.errors import HttpRefusal
from resolvers.context import Role
from tests.gateway.waiting import until
from tests.support.gateway_server import serve

SECRET = "a-secret-for-the-tests-only-0123456789"
TOKENS = Tokens(SECRET, None)


def claims(**changed: Any) -> dict[str, Any]:
    """What a good token says, with some of it *changed*; None leaves a claim out."""
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
    """An Authorization header's value."""
    headers = {"kid": kid} if kid else None
    return "Bearer " + jwt.encode(claims(**changed), key, algorithm, headers)


async def refusal(tokens: Tokens, authorization: object) -> int:
    """The status with which *authorization* is refused."""
    with pytest.raises(HttpRefusal) as refused:
        await tokens.viewer(authorization)
    return refused.value.status


async def test_a_good_token_says_who_asks() -> None:
    """Subject, role, customers, and until when."""
    viewer = await TOKENS.viewer(bearer(jti="t-1", exp=2_000_000_000))

    assert ("user-1", Role.CUSTOMER, {"cus_1", "cus_2"}) == (
        viewer.subject,
        viewer.role,
        viewer.customers,
    )
    assert (viewer.expires_at, viewer.token_id) == (2_000_000_000, "t-1")


@pytest.mark.parametrize("role", ["support", "metering"])
async def test_staff_and_services_name_no_customers(role: str) -> None:
    """What their token lists is not what they may see."""
    viewer = await TOKENS.viewer(bearer(role=role))

    assert (Role(role), frozenset()) == (viewer.role, viewer.customers)


async def test_tokens_without_a_name_are_told_apart() -> None:
    """Allowances count by token, and most tokens carry no `jti`."""
    one, other = [await TOKENS.viewer(bearer(sub=sub)) for sub in ("a", "b")]

    assert one.token_id != other.token_id


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
async def test_claims_that_do_not_hold_prove_nobody(changed: dict[str, Any]) -> None:
    """401 for each; a token for another service is none for us."""
    assert await refusal(TOKENS, bearer(**changed)) == 401


@pytest.mark.parametrize(
    "authorization",
    [
        None, 7, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer a.b.c", "Bearer " + "x" * 10_000,
        bearer("another-secret-of-the-same-length-00000"), bearer(SECRET * 2, "HS512"),
        "Bearer " + jwt.encode(claims(), None, "none"), bearer()[:-4], "Bearer ...", "Bearer \x00",
    ],
)  # fmt: skip
async def test_what_is_no_token_proves_nobody(authorization: object) -> None:
    """Whatever somebody puts there, unsigned tokens among them."""
    assert await refusal(TOKENS, authorization) == 401


async def test_clocks_may_differ_a_little() -> None:
    """And a stream opened within the leeway lasts as long as the leeway."""
    expired = time.time() - LEEWAY + 2

    viewer = await TOKENS.viewer(bearer(exp=int(expired)))

    assert lasts_until(viewer) == int(expired) + LEEWAY


async def test_what_stays_open_ends_when_the_token_expires() -> None:
    """To the second: what comes after it needs a new one."""
    soon = int(time.time()) + 30

    assert soon == lasts_until(await TOKENS.viewer(bearer(exp=soon)))


class Issuer:
    """An issuer with a JWKS, which can rotate its keys, go away, and talk nonsense."""

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKeyTypes] = {}
        self.asked = 0
        self.up = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.nonsense: str | None = None
        self.extra: list[dict[str, Any]] = []
        self.app = Starlette(routes=[Route("/jwks", self._answer)])
        self.address = ""
        self.client = httpx.AsyncClient()

    def tokens(self, **options: Any) -> Tokens:
        """A verifier that trusts this issuer, and a shared secret as well."""
        return Tokens(SECRET, KeySet(f"http://{self.address}/jwks", self.client, **options))

    async def _answer(self, _: Request) -> Response:
        self.asked += 1
        await self.answers.wait()
        if self.nonsense is not None:
            return Response(self.nonsense)
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
    """An issuer with an RSA and an EC key, on a server of its own."""
    made = Issuer()
    made.keys = {"rsa-1": RSA, "ec-1": EC}
    async with made.client, serve(made.app) as made.address:
        yield made


async def test_keys_of_a_jwks_verify_and_are_asked_for_once(issuer: Issuer) -> None:
    """Not once for each request."""
    tokens = issuer.tokens()

    for _ in range(3):
        assert (await tokens.viewer(bearer(RSA, "RS256", "rsa-1"))).subject == "user-1"
        assert (await tokens.viewer(bearer(EC, "ES256", "ec-1"))).subject == "user-1"

    assert issuer.asked == 1


async def test_a_new_key_is_found_at_once_and_an_old_one_forgotten(issuer: Issuer) -> None:
    """Rotation needs no restart."""
    tokens = issuer.tokens(patience=0)
    await tokens.viewer(bearer(RSA, "RS256", "rsa-1"))

    issuer.keys = {"ec-2": EC}

    assert (await tokens.viewer(bearer(EC, "ES256", "ec-2"))).subject == "user-1"
    assert await refusal(tokens, bearer(RSA, "RS256", "rsa-1")) == 401


async def test_invented_key_ids_do_not_make_us_ask_each_time(issuer: Issuer) -> None:
    """Anybody can send any `kid`."""
    tokens = issuer.tokens()

    for number in range(20):
        assert await refusal(tokens, bearer(RSA, "RS256", f"invented-{number}")) == 401

    assert issuer.asked == 1


async def test_a_slow_issuer_delays_only_whose_key_is_unknown(issuer: Issuer) -> None:
    """Else whoever invents a `kid` stops everybody for as long as the issuer takes."""
    tokens = issuer.tokens(patience=0)
    await tokens.viewer(bearer(RSA, "RS256", "rsa-1"))
    issuer.answers.clear()
    invented = asyncio.create_task(refusal(tokens, bearer(RSA, "RS256", "invented")))
    await until(lambda: issuer.asked == 2)

    async with asyncio.timeout(2):
        for _ in range(10):
            assert (await tokens.viewer(bearer(RSA, "RS256", "rsa-1"))).subject == "user-1"

    assert not invented.done()
    issuer.answers.set()
    assert await invented == 401
    assert issuer.asked == 2


async def test_who_gives_up_waiting_takes_no_key_from_the_others(issuer: Issuer) -> None:
    """A browser that leaves must not end the look-up that everybody waits for."""
    tokens = issuer.tokens()
    issuer.answers.clear()
    first, second = [
        asyncio.create_task(tokens.viewer(bearer(RSA, "RS256", "rsa-1"))) for _ in range(2)
    ]
    await until(lambda: issuer.asked == 1)

    first.cancel()
    issuer.answers.set()

    assert (await second).subject == "user-1"
    assert issuer.asked == 1


async def test_known_keys_hold_while_the_issuer_is_down(issuer: Issuer) -> None:
    """Its outage is not ours; without any key the answer is 503, not 401."""
    tokens = issuer.tokens(lifetime=0, patience=0)
    await tokens.viewer(bearer(RSA, "RS256", "rsa-1"))
    issuer.up = False

    assert (await tokens.viewer(bearer(RSA, "RS256", "rsa-1"))).subject == "user-1"
    assert await refusal(issuer.tokens(), bearer(RSA, "RS256", "rsa-1")) == 503


@pytest.mark.parametrize(
    "nonsense", ["", "<html>", "[]", "{}", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{}]}']
)
async def test_what_is_no_jwks_takes_no_key_away(issuer: Issuer, nonsense: str) -> None:
    """An issuer that answers a maintenance page is down, whatever its status says."""
    tokens = issuer.tokens(lifetime=0, patience=0)
    await tokens.viewer(bearer(RSA, "RS256", "rsa-1"))
    issuer.nonsense = nonsense

    assert (await tokens.viewer(bearer(RSA, "RS256", "rsa-1"))).subject == "user-1"
    assert await refusal(issuer.tokens(), bearer(RSA, "RS256", "rsa-1")) == 503


async def test_a_public_key_is_no_shared_secret(issuer: Issuer) -> None:
    """Nor may a JWKS smuggle one in: algorithms belong to the keys."""
    shared = "a-secret-that-only-the-issuer-has-012345"
    issuer.extra = [
        {
            "kty": "oct",
            "kid": "oct-1",
            "alg": "HS256",
            "k": base64.urlsafe_b64encode(shared.encode()).decode(),
        }
    ]
    tokens = issuer.tokens()

    assert await refusal(tokens, bearer(shared, "HS256", "oct-1")) == 401
    assert await refusal(tokens, bearer(EC, "ES256", "rsa-1")) == 401
    assert await refusal(tokens, bearer(RSA, "RS512", "rsa-1")) == 401
