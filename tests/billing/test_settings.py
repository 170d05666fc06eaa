"""Settings: an invalid environment is refused with a message that names the variable."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from billing.ledger import LedgerPolicy
from billing.setting_checks import REMEDIES
from billing.settings import (
    Environment,
    Settings,
    StartupError,
    load_settings,
    load_stripe_settings,
)

ROOT = Path(__file__).parents[2]
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
        ("BILLING_STRIPE_API_BASE", "http://127.0.0.1:12111 "),
        ("BILLING_STRIPE_API_BASE", "http://"),
        ("BILLING_JWKS_URL", "notaurl"),
        ("BILLING_JWKS_URL", "ftp://issuer.example/keys"),
        ("BILLING_JWKS_URL", "https://issuer.example:port/keys"),
        ("BILLING_JWKS_URL", "https://issuer.example/keys\n"),
        ("BILLING_ALLOWED_ORIGINS", "fly.io"),
        ("BILLING_ALLOWED_ORIGINS", "https://fly.io, https://fly.io/panel"),
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BILLING_METRICS_TOKEN", " "),
        ("BILLING_METRICS_TOKEN", "x"),
        ("BILLING_METRICS_TOKEN", "0123456789abcdef0123456789\n"),
        ("BILLING_JWT_ISSUER", " "),
    ],
)
def test_token_or_issuer_that_never_fits_is_refused(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Each scrape, or each token, would be refused later; a letter can be guessed."""
    environment.setenv(name, value)

    assert startup_error().startswith(f"Refusing to start: {name} ")
    assert REMEDIES[name] in startup_error()


@pytest.mark.parametrize(
    "name", ["BILLING_STRIPE_API_KEY", "BILLING_STRIPE_WEBHOOK_SECRETS", "BILLING_JWT_SECRET"]
)
@pytest.mark.parametrize(
    "damage", ["{}\n", " {}", '"{}"', "'{}'", "{} # of Fly", "{}\N{NO-BREAK SPACE}", "{}\r", "# {}"]
)
def test_secret_with_blank_or_quote_is_refused(
    environment: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    """It was copied with something around it, and each call, webhook or token would be refused later."""
    value = damage.format(GOOD[name].partition(",")[0])
    environment.setenv(name, value)
    if name == "BILLING_STRIPE_WEBHOOK_SECRETS" and value.strip() in GOOD[name]:
        assert load_settings()  # blanks beside a comma mean nothing
        return

    assert startup_error().startswith(f"Refusing to start: {name} ")
    assert value.strip() not in startup_error()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BILLING_STRIPE_API_KEY", "pk_test_0123456789abcdef"),
        ("BILLING_STRIPE_API_KEY", "whsec_0123456789abcdef"),
        ("BILLING_STRIPE_API_KEY", "0123456789abcdef0123456789abcdef"),
        ("BILLING_STRIPE_WEBHOOK_SECRETS", "sk_test_0123456789abcdef"),
        ("BILLING_STRIPE_WEBHOOK_SECRETS", "whsec_0123456789abcdef,pk_test_0123456789abcdef"),
        ("BILLING_STRIPE_WEBHOOK_SECRETS", "whsec_0123456789abcdef;whsec_fedcba9876543210"),
        ("BILLING_JWT_SECRET", "whsec_0123456789abcdef0123456789abcdef"),
        ("BILLING_JWT_SECRET", "sk_test_0123456789abcdef0123456789abcdef"),
        ("BILLING_JWT_SECRET", "0123456789abcdef0123456789abcde"),
        ("BILLING_JWT_SECRET", " " * 40),
    ],
)
def test_secret_of_the_wrong_kind_is_refused(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """It starts, says that it is ready, and then every call is refused; a short one can be found by trying."""
    environment.setenv(name, value)

    assert startup_error().startswith(f"Refusing to start: {name} ")
    assert REMEDIES[name] in startup_error()
    assert value not in startup_error()


def test_previous_jwt_secret_follows_the_same_rules(environment: pytest.MonkeyPatch) -> None:
    """And it is of no use alone."""
    environment.setenv("BILLING_JWT_PREVIOUS_SECRET", "short")
    assert "BILLING_JWT_PREVIOUS_SECRET is empty or shorter" in startup_error()

    environment.setenv("BILLING_JWT_PREVIOUS_SECRET", "f" * 32)
    assert load_settings().jwt_previous_secret

    environment.delenv("BILLING_JWT_SECRET")
    environment.setenv("BILLING_JWKS_URL", "https://issuer.example/keys")
    assert "BILLING_JWT_PREVIOUS_SECRET is set without" in startup_error()


def test_every_empty_optional_variable_is_an_unset_one(environment: pytest.MonkeyPatch) -> None:
    """As `.env.example` and most templates leave them."""
    before = load_settings()
    for name in Settings.model_fields:
        if f"BILLING_{name.upper()}" not in GOOD:
            environment.setenv(f"BILLING_{name.upper()}", "")

    assert load_settings() == before

    environment.setenv("BILLING_JWT_SECRET", "")
    environment.setenv("BILLING_JWKS_URL", "https://issuer.example/keys")
    assert load_settings().jwt_secret is None


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("BILLING_FLUSH_INTERVALL", "BILLING_FLUSH_INTERVAL"),
        ("BILLING_STRIPE_KEY", "BILLING_STRIPE_API_KEY"),
        ("billing_jwt_secrets", "BILLING_JWT_SECRET"),
        ("BILLING_LEDGER_REPLICA", "BILLING_LEDGER_REPLICAS"),
        ("BILLING_ENVIROMENT", "BILLING_ENVIRONMENT"),
    ],
)
@pytest.mark.parametrize("load", [load_settings, load_stripe_settings])
def test_misspelt_variable_is_refused(
    environment: pytest.MonkeyPatch, wrong: str, right: str, load: Callable[[], object]
) -> None:
    """The process would run with the default, and nobody would know."""
    environment.setenv(wrong, "7")

    with pytest.raises(StartupError) as refused:
        load()

    assert str(refused.value) == (
        f"Refusing to start: {wrong.upper()} is no setting; write {right}, or unset it."
    )


def test_variable_of_others_is_only_logged(environment: pytest.MonkeyPatch) -> None:
    """Kubernetes sets some for each service; `make up` has two of its own, which are known."""
    for name in ("SERVICE_HOST", "SERVICE_PORT", "PORT_8000_TCP_ADDR", "PORT", "DATA_DIR"):
        environment.setenv(f"BILLING_{name}", "1")

    with capture_logs() as logs:
        load_settings()

    [warning] = logs
    assert warning["event"] == "settings.unknown"
    assert warning["names"] == [
        "BILLING_PORT_8000_TCP_ADDR",
        "BILLING_SERVICE_HOST",
        "BILLING_SERVICE_PORT",
    ]


PRODUCTION = {
    "BILLING_ENVIRONMENT": "production",
    "BILLING_QUEUE_URL": "redis://127.0.0.1:2/0",
    "BILLING_CACHE_URL": "redis://127.0.0.1:3/0",
}


def test_live_key_requires_production(environment: pytest.MonkeyPatch) -> None:
    """Development shows the schema to customers' tokens, serves the example panel and shares one server."""
    environment.setenv("BILLING_STRIPE_API_KEY", "rk_live_0123456789abcdef")

    assert "set BILLING_ENVIRONMENT=production" in startup_error()

    for name, value in PRODUCTION.items():
        environment.setenv(name, value)
    assert load_settings().livemode


@pytest.mark.parametrize("name", ["BILLING_QUEUE_URL", "BILLING_CACHE_URL"])
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://:secret@127.0.0.1:1/7"])
def test_production_refuses_one_server_for_two_tasks(
    environment: pytest.MonkeyPatch, name: str, url: str
) -> None:
    """Another database of the ledger's server has the same memory and the same rule of eviction."""
    for variable, value in {**PRODUCTION, name: url}.items():
        environment.setenv(variable, value)

    assert f"BILLING_REDIS_URL and {name} lead to the same server" in startup_error()
    environment.setenv("BILLING_REDIS_URL", "redis://127.0.0.1:9")
    assert load_settings()


def test_production_requires_encrypted_keys(environment: pytest.MonkeyPatch) -> None:
    """Whoever is on the path to the issuer could sign tokens of Support; this machine has no path."""
    for name, value in PRODUCTION.items():
        environment.setenv(name, value)
    environment.setenv("BILLING_JWKS_URL", "http://issuer.example/keys")
    assert "BILLING_JWKS_URL is not an https:// address" in startup_error()

    for loopback in ("http://localhost:8/keys", "http://127.0.0.9/keys", "http://[::1]:8/keys"):
        environment.setenv("BILLING_JWKS_URL", loopback)
        assert load_settings().jwks_url == loopback


def test_example_file_works_as_an_environment_file(environment: pytest.MonkeyPatch) -> None:
    """systemd, docker and kubectl keep what stands behind a value; empty secrets are asked for by name."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    set_lines = [line for line in lines if line and not line.startswith("#")]
    for name in GOOD:
        environment.delenv(name)

    pairs = [re.fullmatch(r"([A-Z_]+)=(\S*)", line) for line in set_lines]
    assert all(pairs)
    for pair in pairs:
        environment.setenv(*pair.groups())
    commented = re.findall(r"^#(BILLING_[A-Z_]+)=", "\n".join(lines), re.MULTILINE)
    known = {f"BILLING_{name.upper()}" for name in Settings.model_fields}
    assert {*commented, *(pair.group(1) for pair in pairs)} <= known

    for name in ("BILLING_STRIPE_API_KEY", "BILLING_STRIPE_WEBHOOK_SECRETS"):
        assert f"{name} is not set" in startup_error()
        environment.setenv(name, GOOD[name])
    assert "BILLING_STRIPE_WEBHOOK_SECRETS" not in startup_error()
    assert "BILLING_JWT_SECRET is not set" in startup_error()
    environment.setenv("BILLING_JWT_SECRET", GOOD["BILLING_JWT_SECRET"])
    assert load_settings().environment is Environment.PRODUCTION


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
