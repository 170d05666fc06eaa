"""A start without what production needs is refused with a sentence that names the variable."""

import pytest

from billing.ledger import LedgerPolicy
from billing.settings import CURES, Settings, SettingsRefused, load_settings

GOOD = {
    "BILLING_STRIPE_API_KEY": "sk_test_0123456789abcdef",
    "BILLING_STRIPE_WEBHOOK_SECRETS": "whsec_0123456789abcdef, whsec_fedcba9876543210",
    "BILLING_REDIS_URL": "redis://127.0.0.1:1/0",
    "BILLING_JWT_SECRET": "0123456789abcdef0123456789abcdef",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A complete environment that a test may damage."""
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def refusal() -> str:
    """What a start says when it is refused."""
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    return str(refused.value)


def test_a_complete_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    """Several webhook secrets are one variable, so that they can be rotated."""
    settings = load_settings()

    secrets = [secret.get_secret_value() for secret in settings.stripe_webhook_secrets]
    assert secrets == ["whsec_0123456789abcdef", "whsec_fedcba9876543210"]


@pytest.mark.parametrize("name", GOOD)
def test_what_is_missing_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    """An operator reads one sentence and knows which variable to set, and to what."""
    environment.delenv(name)

    assert refusal() == f"Refusing to start: {name} is not set; {CURES[name]}."


@pytest.mark.parametrize("name", GOOD)
def test_what_is_empty_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    """An empty secret is worse than none: it verifies everything."""
    environment.setenv(name, "")

    assert name in refusal()
    assert CURES[name] in refusal()


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
def test_a_number_that_cannot_be_meant_is_refused(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Seven times Stripe's allowance, or none at all: nobody finds out before Stripe does."""
    environment.setenv(name, value)

    assert name in refusal()


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
def test_an_address_that_leads_nowhere_is_refused(
    environment: pytest.MonkeyPatch, name: str, address: str
) -> None:
    """A sentence at the start, not a stack trace out of a client, nor every token refused for an hour."""
    environment.setenv(name, address)

    assert CURES[name] in refusal()


def test_keys_of_an_issuer_stand_in_for_a_secret(environment: pytest.MonkeyPatch) -> None:
    """An address that can be meant is taken as it is."""
    environment.delenv("BILLING_JWT_SECRET")
    environment.setenv("BILLING_JWKS_URL", "https://issuer.example/.well-known/jwks.json")

    assert load_settings().jwks_url == "https://issuer.example/.well-known/jwks.json"


def test_a_ledger_in_a_cluster_asks_for_servers_beside_it(environment: pytest.MonkeyPatch) -> None:
    """Queue and cache default to the ledger's server, and neither can be a cluster."""
    environment.setenv("BILLING_REDIS_URL", "redis+cluster://ledger:6379")

    assert "BILLING_QUEUE_URL" in refusal()


def test_usage_may_be_as_old_as_the_ledger_remembers(environment: pytest.MonkeyPatch) -> None:
    """Both bounds at once: an id outlives its usage's acceptance, a month's bill its late usage."""
    environment.setenv("BILLING_USAGE_MAX_AGE", "3283200")
    environment.setenv("BILLING_USAGE_MAX_FUTURE", "345600")
    settings = load_settings()

    LedgerPolicy(
        usage_max_age_ms=settings.usage_max_age * 1000,
        usage_max_future_ms=settings.usage_max_future * 1000,
    )


def test_a_cluster_cannot_promise_replicas(environment: pytest.MonkeyPatch) -> None:
    """WAIT asks one server of them, of which the write may be none: the promise would be empty."""
    for name in ("BILLING_QUEUE_URL", "BILLING_CACHE_URL"):
        environment.setenv(name, "redis://127.0.0.1:1/0")
    environment.setenv("BILLING_REDIS_URL", "redis+cluster://ledger:6379")
    environment.setenv("BILLING_LEDGER_REPLICAS", "1")

    assert "BILLING_LEDGER_REPLICAS" in refusal()
    assert CURES["BILLING_LEDGER_REPLICAS"] in refusal()


def test_no_list_at_a_time_is_no_setting(environment: pytest.MonkeyPatch) -> None:
    """Nothing could be billed: no draft is made without having listed first."""
    environment.setenv("BILLING_STRIPE_LIST_CONCURRENCY", "0")

    assert "BILLING_STRIPE_LIST_CONCURRENCY" in refusal()


def test_a_live_key_stays_with_stripe(environment: pytest.MonkeyPatch) -> None:
    """A live key sent to another address is a leaked key."""
    environment.setenv("BILLING_STRIPE_API_KEY", "sk_live_0123456789abcdef")
    environment.setenv("BILLING_STRIPE_API_BASE", "http://127.0.0.1:12111")

    assert "BILLING_STRIPE_API_BASE" in refusal()


def test_production_needs_servers_of_its_own(environment: pytest.MonkeyPatch) -> None:
    """The ledger's server never evicts, so the cache cannot live on it."""
    environment.setenv("BILLING_ENVIRONMENT", "production")

    assert "BILLING_CACHE_URL" in refusal()


def test_no_secret_is_shown(environment: pytest.MonkeyPatch) -> None:
    """Settings end up in logs and tracebacks."""
    shown = repr(Settings())

    assert not any(
        secret in shown for secret in ("sk_test_0123", "whsec_0123", "0123456789abcdef0123")
    )
