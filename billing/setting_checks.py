"""Checks of single settings: each raises ValueError with the end of one sentence, which names variable and remedy.

No message repeats a value, because it may be a secret.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from itertools import combinations
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_core import ErrorDetails

from billing.redis_urls import PRINTABLE, server_of, url_problem

STRIPE_API_BASE = "https://api.stripe.com"
MIN_SECRET = 16
MIN_JWT_SECRET = 32  # bytes, for HS256 (RFC 7518, section 3.2)
API_KEY = re.compile(r"(sk|rk)_(test|live)_\w+", re.ASCII)
WEBHOOK_SECRET = re.compile(r"whsec_[\w+/=-]+", re.ASCII)
KEYS_OF_STRIPE = ("sk_", "rk_", "pk_", "whsec_")
ORIGIN = re.compile(r"https?://[^/\s]+|\*")
LIKENESS = 0.8  # of two names, of which one is then a misspelling of the other
PREFIX = "BILLING_"
REMEDIES = {
    "BILLING_STRIPE_API_KEY": "copy a secret or restricted key (sk_… or rk_…) from Stripe's Dashboard (Developers, API keys)",
    "BILLING_STRIPE_API_BASE": f"unset it for Stripe itself ({STRIPE_API_BASE}), or give the sandbox's address, such as http://127.0.0.1:12111",
    "BILLING_STRIPE_WEBHOOK_SECRETS": "give the endpoint's signing secret (whsec_…), which `python -m webhooks` prints",
    "BILLING_REDIS_URL": "give the address of the ledger's server, such as redis://ledger:6379/0",
    "BILLING_QUEUE_URL": "give the address of one server or of Sentinels, such as redis://queue:6379/0",
    "BILLING_CACHE_URL": "give the address of one server, such as redis://cache:6379/0",
    "BILLING_LEDGER_REPLICAS": "leave it at 0 for a cluster, whose servers confirm nothing together, or let BILLING_REDIS_URL lead to one server or Sentinels",
    "BILLING_LEDGER_RETENTION": "give days, 100 (late usage may still ask for a billed month) to 3650",
    "BILLING_CACHE_FRESH": "give seconds, at most 1200: what is three times as old is still shown once",
    "BILLING_USAGE_MAX_AGE": "give seconds, at most 38 days (3283200): what is older may find its month's bill forgotten",
    "BILLING_USAGE_MAX_FUTURE": "give seconds, at most 4 days (345600): an id is remembered for six weeks",
    "BILLING_JWT_SECRET": "give the secret that your issuer signs tokens with, or set BILLING_JWKS_URL instead",
    "BILLING_JWT_PREVIOUS_SECRET": "give the secret that BILLING_JWT_SECRET replaces, until its last token has expired",
    "BILLING_JWT_ISSUER": "give the `iss` of your issuer's tokens, or unset it",
    "BILLING_METRICS_TOKEN": "give the random text that Prometheus sends as its bearer token",
    "BILLING_JWKS_URL": "give the address of your issuer's keys, such as https://issuer.example/.well-known/jwks.json",
    "BILLING_ALLOWED_ORIGINS": "give scheme, host and port alone, such as https://fly.io, several with commas",
    "BILLING_AUDIT_RETENTION": "give days, 30 to 36500, or unset it to keep every entry",
}


def invalid(variable: str, wrong: str) -> ValueError:
    """Return the error that says what is *wrong* with *variable*, and its remedy."""
    return ValueError(f"{variable} {wrong}; {REMEDIES[variable]}")


def refusal(error: ErrorDetails) -> str:
    """Return the sentence for one of pydantic's errors about settings."""
    if not error["loc"]:
        return f"Refusing to start: {error['msg'].removeprefix('Value error, ')}."
    variable = f"{PREFIX}{str(error['loc'][0]).upper()}"
    if error["type"] == "missing":
        return f"Refusing to start: {invalid(variable, 'is not set')}."
    cure = f"; {REMEDIES[variable]}" if variable in REMEDIES else ""
    return f"Refusing to start: {variable} is invalid ({error['msg']}){cure}."


def check_api_key(secret: SecretStr) -> None:
    """Check Stripe's API key."""
    name = "BILLING_STRIPE_API_KEY"
    key = _check_secret(name, secret, MIN_SECRET)
    if not API_KEY.fullmatch(key):
        raise invalid(name, "is no secret or restricted key")


def check_webhook_secrets(secrets: Iterable[SecretStr]) -> None:
    """Check the signing secrets of webhooks, of which there is one at least."""
    name = "BILLING_STRIPE_WEBHOOK_SECRETS"
    texts = [_check_secret(name, secret, MIN_SECRET) for secret in secrets]
    if not texts:
        raise invalid(name, "names no secret")
    if not all(WEBHOOK_SECRET.fullmatch(text) for text in texts):
        raise invalid(name, "is no signing secret")


def check_jwt_secret(name: str, secret: SecretStr) -> None:
    """Check a secret that verifies tokens."""
    text = _check_secret(name, secret, MIN_JWT_SECRET)
    if "#" in text:
        raise invalid(name, "contains a #, as if a comment stood behind the value")
    if text.startswith(KEYS_OF_STRIPE):
        raise invalid(name, "is one of Stripe's keys")


def check_metrics_token(token: SecretStr) -> None:
    """Check the token that Prometheus sends: a header loses blanks around it, and then it would never fit."""
    _check_secret("BILLING_METRICS_TOKEN", token, MIN_SECRET)


def check_redis_url(name: str, url: str, schemes: frozenset[str]) -> None:
    """Check a server's address, which has one of *schemes*."""
    if problem := url_problem(url, schemes):
        raise invalid(name, problem)


def check_apart(**urls: str) -> None:
    """Check that no two variables lead to the same server."""
    for (one, url), (other, other_url) in combinations(urls.items(), 2):
        if server_of(url) == server_of(other_url):
            raise ValueError(
                f"{one} and {other} lead to the same server, and in production each has its own; "
                f"give {other} another"
            )


def check_web_address(name: str, text: str, *, encrypted: bool = False) -> None:
    """Check the address of a web service; *encrypted* demands https:// except on this machine."""
    if not (PRINTABLE.fullmatch(text) and _is_web_address(text)):
        raise invalid(name, "is not an http:// or https:// address")
    if encrypted and not text.startswith("https://") and not is_loopback(text):
        raise invalid(name, "is not an https:// address, as production demands")


def check_origins(origins: Iterable[str]) -> None:
    """Check web origins, as browsers send them."""
    name = "BILLING_ALLOWED_ORIGINS"
    if not all(ORIGIN.fullmatch(origin) for origin in origins):
        raise invalid(name, "names what is no origin")


def check_names(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """Refuse names that misspell a *known* one; return the others that are unknown here, sorted.

    Those are no error: Kubernetes, for example, sets variables for a service called ``billing``.
    """
    ours = {name.upper() for name in found if name.upper().startswith(PREFIX)}
    suffixes = {name.removeprefix(PREFIX) for name in known}
    unknown = sorted({name.removeprefix(PREFIX) for name in ours} - suffixes)
    for name in unknown:
        for near in get_close_matches(name, suffixes, 1, LIKENESS):
            raise ValueError(f"{PREFIX}{name} is no setting; write {PREFIX}{near}, or unset it")
    return [f"{PREFIX}{name}" for name in unknown]


def is_loopback(address: str) -> bool:
    """Return True if *address* is a web address on this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_secret(name: str, secret: SecretStr, least: int) -> str:
    text = secret.get_secret_value()
    if len(text.encode()) < least:
        raise invalid(name, f"is empty or shorter than {least} characters")
    if not PRINTABLE.fullmatch(text) or "'" in text or '"' in text:
        raise invalid(name, "contains white space, quotes or a character beyond ASCII")
    return text


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
