"""Settings: an invalid environment is refused with a message that names the variable."""

import pytest

from billing.ledger import LedgerPolicy
from billing.settings import REMEDIES, Settings, StartupError, load_settings

GOOD = {
    "BILLING_STRIPE_API_KEY": "sk_test_0123456789abcdef",
    "BILLING_STRIPE_WEBHOOK_SECRETS": "whsec_0123456789abcdef, whsec_fedcba9876543210",
    "BILLING_REDIS_URL": "redis://127.0.0.1:1/0",
    "BILLING_JWT_SECRET": "0123456789abcdef0123456789abcdef",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A complete environment that a test may change."""
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def startup_error() -> str:
    """The message of the error at start."""
    with pytest.raises(StartupError) as refused:
        load_settings()
    return str(refused.value)


def test_complete_environment_loads(environment: pytest.MonkeyPatch) -> None:
    """Several webhook secrets are one variable, so that they can be rotated."""
    settings = load_settings()

    secrets = [secret.get_secret_value() for secret in settings.stripe_webhook_secrets]
    assert secrets == ["whsec_0123456789abcdef", "whsec_fedcba9876543210"]


@pytest.mark.parametrize("name", GOOD)
def test_missing_variable_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    """The message names the variable to set, and its value."""
    environment.delenv(name)

    assert startup_error() == f"Refusing to start: {name} is not set; {REMEDIES[name]}."


@pytest.mark.parametrize("name", GOOD)
def test_empty_variable_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    """An empty secret would verify everything."""
    environment.setenv(name, "")

    assert name in startup_error()
    assert REMEDIES[name] in startup_error()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BILLING_STRIPE_SHARE", "7"),
        ("BILLING_STRIPE_RATE", "0"),
        ("BILLING_FLUSH_INTERVAL", "-5"),
        ("BILLING_FLUSH_JITTER", "1"),
        ("BILLING_SETTLE_WINDOW", "inf"),
        ("BILLING_USAGE_MAX_AGE", "0"),
        ("BILLING_USAGE_MAX_AGE", "3283201"),
        ("BILLING_USAGE_MAX_FUTURE", "345601"),
        ("BILLING_METRICS_PORT", "70000"),
        ("BILLING_LEDGER_RETENTION", "99"),
        ("BILLING_CACHE_FRESH", "0"),
        ("BILLING_CACHE_FRESH", "1201"),
    ],
)
def test_number_out_of_range_is_refused(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Seven times Stripe's limit, or none at all, is a typing error."""
    environment.setenv(name, value)

    assert name in startup_error()


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("BILLING_REDIS_URL", "http://ledger:6379"),
        ("BILLING_REDIS_URL", "redis://ledger:port/0"),
        ("BILLING_REDIS_URL", "redis+sentinel://one:26379,two:26379"),
        ("BILLING_QUEUE_URL", "redis+cluster://queue:6379"),
        ("BILLING_CACHE_URL", "cache:6379"),
        ("BILLING_STRIPE_API_BASE", "foo"),
        ("BILLING_STRIPE_API_BASE", ""),
        ("BILLING_STRIPE_API_BASE", "http://"),
        ("BILLING_JWKS_URL", "notaurl"),
        ("BILLING_JWKS_URL", "ftp://issuer.example/keys"),
        ("BILLING_JWKS_URL", "https://issuer.example:port/keys"),
    ],
)
def test_invalid_address_is_refused(
    environment: pytest.MonkeyPatch, name: str, address: str
) -> None:
    """One sentence at the start instead of a stack trace of a client, or rejected tokens for an hour."""
    environment.setenv(name, address)

    assert REMEDIES[name] in startup_error()


def test_jwks_url_replaces_jwt_secret(environment: pytest.MonkeyPatch) -> None:
    """A valid address is used as it is."""
    environment.delenv("BILLING_JWT_SECRET")
    environment.setenv("BILLING_JWKS_URL", "https://issuer.example/.well-known/jwks.json")

    assert load_settings().jwks_url == "https://issuer.example/.well-known/jwks.json"


def test_cluster_ledger_requires_queue_and_cache(environment: pytest.MonkeyPatch) -> None:
    """Queue and cache default to the ledger's server, and neither can be a cluster."""
    environment.setenv("BILLING_REDIS_URL", "redis+cluster://ledger:6379")

    assert "BILLING_QUEUE_URL" in startup_error()


def test_longest_usage_age_suits_the_ledger(environment: pytest.MonkeyPatch) -> None:
    """At both upper bounds, an id outlives its usage's acceptance and a month's bill its late usage."""
    environment.setenv("BILLING_USAGE_MAX_AGE", "3283200")
    environment.setenv("BILLING_USAGE_MAX_FUTURE", "345600")
    settings = load_settings()

    LedgerPolicy(
        usage_max_age_ms=settings.usage_max_age * 1000,
        usage_max_future_ms=settings.usage_max_future * 1000,
    )


def test_cluster_ledger_refuses_replicas(environment: pytest.MonkeyPatch) -> None:
    """WAIT is answered by one server, which may not have the write: the promise would be empty."""
    for name in ("BILLING_QUEUE_URL", "BILLING_CACHE_URL"):
        environment.setenv(name, "redis://127.0.0.1:1/0")
    environment.setenv("BILLING_REDIS_URL", "redis+cluster://ledger:6379")
    environment.setenv("BILLING_LEDGER_REPLICAS", "1")

    assert "BILLING_LEDGER_REPLICAS" in startup_error()
    assert REMEDIES["BILLING_LEDGER_REPLICAS"] in startup_error()


def test_zero_list_concurrency_is_refused(environment: pytest.MonkeyPatch) -> None:
    """Billing would stop: a draft is created only after a list call."""
    environment.setenv("BILLING_STRIPE_LIST_CONCURRENCY", "0")

    assert "BILLING_STRIPE_LIST_CONCURRENCY" in startup_error()


def test_live_key_requires_stripe_address(environment: pytest.MonkeyPatch) -> None:
    """A live key sent to another address is a leaked key."""
    environment.setenv("BILLING_STRIPE_API_KEY", "sk_live_0123456789abcdef")
    environment.setenv("BILLING_STRIPE_API_BASE", "http://127.0.0.1:12111")

    assert "BILLING_STRIPE_API_BASE" in startup_error()


def test_production_requires_separate_servers(environment: pytest.MonkeyPatch) -> None:
    """The ledger's server never evicts, so the cache cannot share it."""
    environment.setenv("BILLING_ENVIRONMENT", "production")

    assert "BILLING_CACHE_URL" in startup_error()


def test_repr_hides_secrets(environment: pytest.MonkeyPatch) -> None:
    """Settings end up in logs and tracebacks."""
    shown = repr(Settings())

    assert not any(
        secret in shown for secret in ("sk_test_0123", "whsec_0123", "0123456789abcdef0123")
    )
