"""Settings from the environment: frozen and typed; an error names the variable and the remedy.

``BILLING_ENVIRONMENT=production`` requires separate queue and cache servers; in ``development`` (the
default) one server may be all three. Both require a durable ledger.
"""

from enum import StrEnum
from typing import Annotated, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from billing.redis_clients import CLUSTER_SCHEMES, SENTINEL_SCHEMES, SINGLE_SCHEMES, is_redis_url

STRIPE_API_BASE = "https://api.stripe.com"
MIN_SECRET = 16
DAY = 86_400
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
REMEDIES = {
    "BILLING_STRIPE_API_KEY": "copy a secret or restricted key from Stripe's Dashboard (Developers, API keys)",
    "BILLING_STRIPE_API_BASE": f"unset it for Stripe itself ({STRIPE_API_BASE}), or give the sandbox's address, such as http://127.0.0.1:12111",
    "BILLING_STRIPE_WEBHOOK_SECRETS": "give the endpoint's signing secret, which `python -m webhooks` prints",
    "BILLING_REDIS_URL": "give the address of the ledger's server, such as redis://ledger:6379/0",
    "BILLING_QUEUE_URL": "give the address of one server or of Sentinels, such as redis://queue:6379/0",
    "BILLING_CACHE_URL": "give the address of one server, such as redis://cache:6379/0",
    "BILLING_LEDGER_REPLICAS": "leave it at 0 for a cluster, whose servers confirm nothing together, or let BILLING_REDIS_URL lead to one server or Sentinels",
    "BILLING_LEDGER_RETENTION": "give days, 100 (late usage may still ask for a billed month) to 3650",
    "BILLING_CACHE_FRESH": "give seconds, at most 1200: what is three times as old is still shown once",
    "BILLING_USAGE_MAX_AGE": "give seconds, at most 38 days (3283200): what is older may find its month's bill forgotten",
    "BILLING_USAGE_MAX_FUTURE": "give seconds, at most 4 days (345600): an id is remembered for six weeks",
    "BILLING_JWT_SECRET": "give the secret that your issuer signs tokens with, or set BILLING_JWKS_URL instead",
    "BILLING_JWKS_URL": "give the address of your issuer's keys, such as https://issuer.example/.well-known/jwks.json",
}


class Environment(StrEnum):
    """The mode of operation; production has stricter requirements."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


SettingsT = TypeVar("SettingsT", bound="StripeSettings")


class StartupError(SystemExit):
    """The process cannot start; the message names the variable at fault and the remedy."""


class StripeSettings(BaseSettings):
    """Access to Stripe; each field is the variable ``BILLING_<FIELD>`` in upper case."""

    model_config = SettingsConfigDict(env_prefix="BILLING_", frozen=True, extra="ignore")

    stripe_api_key: SecretStr
    stripe_api_base: str = STRIPE_API_BASE

    @model_validator(mode="after")
    def _check_stripe_address(self) -> Self:
        _require_length("BILLING_STRIPE_API_KEY", self.stripe_api_key)
        _require_web_address("BILLING_STRIPE_API_BASE", self.stripe_api_base)
        if self.livemode and self.stripe_api_base != STRIPE_API_BASE:
            raise ValueError(
                "BILLING_STRIPE_API_BASE points away from Stripe while BILLING_STRIPE_API_KEY is a live "
                "key; unset the base address or use a test key",
            )
        return self

    @property
    def livemode(self) -> bool:
        """True for a live key; it cannot reach objects of test mode."""
        return "_live_" in self.stripe_api_key.get_secret_value()


class Settings(StripeSettings):
    """All settings of the gateway and the workers."""

    environment: Environment = Environment.DEVELOPMENT
    stripe_webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode]
    redis_url: str
    queue_url: str = ""
    cache_url: str = ""
    jwt_secret: SecretStr | None = None
    jwks_url: str | None = None
    # Replicas of the ledger's server that must have a write before it is acknowledged; 0 with a cluster.
    ledger_replicas: NonNegativeInt = 0
    # Days for which the ledger keeps a finalized month and a line is found by its id. Late usage (and
    # `RECOVERY_WINDOW_MS` in billing/ledger/policy.py) needs at least a hundred.
    ledger_retention: Annotated[int, Field(ge=100, le=3650)] = 100
    # Serve although the ledger's server is not durable, or its durability is unknown (CONFIG forbidden);
    # `/readyz` then warns instead of failing.
    accept_volatile_ledger: bool = False

    # The GraphQL edge. A JSON file, id (or SHA-256) to document: with it only Support may run other
    # documents. Web origins whose pages may call from the browser, comma-separated.
    trusted_documents: str = ""
    allowed_origins: str = ""

    # Address of a worker's Prometheus endpoint (the gateway has /metrics); port 0 disables it.
    host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, lt=65_536)] = 0

    # Usage is accepted so many seconds before and after now; the ledger remembers ids no longer.
    usage_max_age: Annotated[int, Field(gt=0, le=38 * DAY)] = 35 * DAY
    usage_max_future: Annotated[int, Field(ge=0, le=4 * DAY)] = 300

    # Automatic flushes (docs/scheduling.md weighs staleness against calls): seconds that recorded usage
    # may wait; the amount (minor units) that ends the wait earlier; the minimum time between two
    # flushes of one customer; and the share of jitter.
    flush_interval: PositiveFloat = 12 * 3600
    flush_stake: NonNegativeInt = 2_000
    flush_pause: NonNegativeFloat = 900
    flush_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    # Seconds until the lease of a dead worker expires: well above Stripe's longest response (20 s),
    # because a slow worker is not a dead one.
    flush_lease: PositiveFloat = 60
    # Closing a period, in seconds: late usage still joins it during the settle window; nothing may have
    # been in doubt for the quiet time (three times Stripe's longest response) before it is finalized.
    settle_window: NonNegativeFloat = 3600
    quiet_time: NonNegativeFloat = 600

    # Stripe's published rates per second (docs.stripe.com/rate-limits) and the share we use.
    stripe_rate: PositiveFloat = 100
    stripe_endpoint_rate: PositiveFloat = 25
    stripe_search_rate: PositiveFloat = 20
    stripe_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    # Concurrent list calls (Stripe limits slow calls by concurrency, without naming a figure), reads in
    # 30 days (500 for each payment you take, 10,000 at least: set it to yours), and the seconds that a
    # call waits for the budget before it fails.
    stripe_list_concurrency: PositiveInt = 8
    stripe_read_allowance: PositiveInt = 500_000
    stripe_max_wait: NonNegativeFloat = 5
    # Seconds after which a cached object is read again although no webhook reported a change. A panel
    # that is being followed costs three reads each time. At most twenty minutes, because a value three
    # times as old is shown once more while it is refreshed; one an hour old only while Stripe is down.
    cache_fresh: Annotated[float, Field(gt=0, le=1200)] = 300

    @model_validator(mode="before")
    @classmethod
    def _split_secrets(cls, values: dict[str, object]) -> dict[str, object]:
        secrets = values.get("stripe_webhook_secrets")
        if isinstance(secrets, str):
            parts = tuple(part.strip() for part in secrets.split(",") if part.strip())
            values = {**values, "stripe_webhook_secrets": parts}
        return values

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        for secret in self.stripe_webhook_secrets:
            _require_length("BILLING_STRIPE_WEBHOOK_SECRETS", secret)
        if self.jwt_secret is not None:
            _require_length("BILLING_JWT_SECRET", self.jwt_secret)
        if self.jwks_url:
            _require_web_address("BILLING_JWKS_URL", self.jwks_url)
        for name, url, kinds in (
            (
                "BILLING_REDIS_URL",
                self.redis_url,
                SINGLE_SCHEMES | SENTINEL_SCHEMES | CLUSTER_SCHEMES,
            ),
            ("BILLING_QUEUE_URL", self.queue, SINGLE_SCHEMES | SENTINEL_SCHEMES),
            ("BILLING_CACHE_URL", self.cache, SINGLE_SCHEMES),
        ):
            if not is_redis_url(url, kinds):
                raise ValueError(_with_remedy(name, "names no server that can be used for it"))
        if self.ledger_replicas and is_redis_url(self.redis_url, CLUSTER_SCHEMES):
            raise ValueError(
                _with_remedy("BILLING_LEDGER_REPLICAS", "are not supported with a cluster")
            )
        if not self.stripe_webhook_secrets:
            raise ValueError(_with_remedy("BILLING_STRIPE_WEBHOOK_SECRETS", "names no secret"))
        if not (self.jwt_secret or self.jwks_url):
            raise ValueError(_with_remedy("BILLING_JWT_SECRET", "is not set"))
        if self.environment is Environment.PRODUCTION and not (self.queue_url and self.cache_url):
            raise ValueError(
                "in production BILLING_QUEUE_URL and BILLING_CACHE_URL are servers of their own, "
                "because the ledger's never evicts; set both",
            )
        return self

    @property
    def queue(self) -> str:
        """Address of arq's queue; outside production it defaults to the ledger's server."""
        return self.queue_url or self.redis_url

    @property
    def cache(self) -> str:
        """Address of the read cache; outside production it defaults to the ledger's server."""
        return self.cache_url or self.redis_url


def load_settings() -> Settings:
    """Load the settings from the environment; StartupError when one is missing or invalid."""
    return _load(Settings)


def load_stripe_settings() -> StripeSettings:
    """As `load_settings`, for a command that needs Stripe alone."""
    return _load(StripeSettings)


def _load(kind: type[SettingsT]) -> SettingsT:
    try:
        return kind()
    except ValidationError as error:
        raise StartupError(
            "\n".join(_error_message(problem) for problem in error.errors())
        ) from None


def _error_message(error: object) -> str:
    fields = dict(error)  # type: ignore[call-overload]
    if not fields["loc"]:
        return f"Refusing to start: {str(fields['msg']).removeprefix('Value error, ')}."
    variable = f"BILLING_{str(fields['loc'][0]).upper()}"
    if fields["type"] == "missing":
        return f"Refusing to start: {_with_remedy(variable, 'is not set')}."
    cure = f"; {REMEDIES[variable]}" if variable in REMEDIES else ""
    return f"Refusing to start: {variable} is invalid ({fields['msg']}){cure}."


def _require_length(name: str, secret: SecretStr) -> None:
    if len(secret.get_secret_value()) < MIN_SECRET:
        raise ValueError(_with_remedy(name, f"is empty or shorter than {MIN_SECRET} characters"))


def _require_web_address(name: str, text: str) -> None:
    if not _is_web_address(text):
        raise ValueError(_with_remedy(name, "is not an http:// or https:// address"))


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _with_remedy(variable: str, wrong: str) -> str:
    return f"{variable} {wrong}; {REMEDIES[variable]}"
