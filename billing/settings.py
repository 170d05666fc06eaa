"""Settings from the environment: frozen and typed; an error names the variable and the remedy.

``BILLING_ENVIRONMENT=production`` requires separate queue and cache servers; in ``development`` (the
default) one server may be all three. Both require a durable ledger.
"""

import os
from enum import StrEnum
from typing import Annotated, Self, TypeAlias, TypeVar

import structlog
from pydantic import Field, NonNegativeInt, PositiveInt, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from billing import setting_checks as checks
from billing.redis_urls import CLUSTER_SCHEMES, SENTINEL_SCHEMES, SINGLE_SCHEMES, scheme_of
from billing.setting_checks import PREFIX, STRIPE_API_BASE

log = structlog.get_logger(__name__)

DAY = 86_400
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Variables of `make up`, which this process may inherit.
DEMO_VARIABLES = ("BILLING_PORT", "BILLING_DATA_DIR")


class Environment(StrEnum):
    """The mode of operation; production has stricter requirements."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


SettingsT = TypeVar("SettingsT", bound="StripeSettings")


class StartupError(SystemExit):
    """The process cannot start; the message names the variable at fault and the remedy."""


class StripeSettings(BaseSettings):
    """Access to Stripe; each field is the variable ``BILLING_<FIELD>`` in upper case."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True
    )

    stripe_api_key: SecretStr
    stripe_api_base: str = STRIPE_API_BASE

    @model_validator(mode="after")
    def _check_stripe_address(self) -> Self:
        checks.check_api_key(self.stripe_api_key)
        checks.check_web_address("BILLING_STRIPE_API_BASE", self.stripe_api_base)
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
    # The secret of HS256 tokens, and the one before it while it is being replaced; the address of the issuer's
    # public keys; and the `iss` that tokens must have, if the issuer's keys sign for others as well.
    jwt_secret: SecretStr | None = None
    jwt_previous_secret: SecretStr | None = None
    jwks_url: str | None = None
    jwt_issuer: Annotated[str, Field(pattern=r"\S")] | None = None
    # Replicas of the ledger's server that must have a write before it is acknowledged; 0 with a cluster.
    ledger_replicas: NonNegativeInt = 0
    # Days for which the ledger keeps a finalized month and a line is found by its id. Late usage (and
    # `RECOVERY_WINDOW_MS` in billing/ledger/policy.py) needs at least a hundred.
    ledger_retention: Annotated[int, Field(ge=100, le=3650)] = 100
    # Days for which an entry of the audit log is kept; None: for ever.
    audit_retention: Annotated[int, Field(ge=30, le=36_500)] | None = None
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
    # The bearer token that the gateway's /metrics wants; None: it answers anybody.
    metrics_token: SecretStr | None = None
    # Seconds for which a gateway that was told to stop still serves, while /readyz already says 503.
    shutdown_delay: NonNegativeFloat = 0

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
    # Seconds after somebody's last edit of a draft in the Dashboard until it is put right.
    edit_grace: NonNegativeFloat = 600

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
    # Reads that the tokens of one customer may cause in a day (UTC), at most a sixtieth of the reads above, and
    # sessions of Stripe's portal that one party may open for a customer in a minute.
    stripe_customer_reads: PositiveInt = 5_000
    portal_sessions_per_minute: PositiveInt = 10
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
    def _check_tokens(self) -> Self:
        production = self.environment is Environment.PRODUCTION
        if not (self.jwt_secret or self.jwks_url):
            raise checks.invalid("BILLING_JWT_SECRET", "is not set")
        if self.jwt_previous_secret and not self.jwt_secret:
            raise checks.invalid("BILLING_JWT_PREVIOUS_SECRET", "is set without BILLING_JWT_SECRET")
        for name, secret in (
            ("BILLING_JWT_SECRET", self.jwt_secret),
            ("BILLING_JWT_PREVIOUS_SECRET", self.jwt_previous_secret),
        ):
            if secret:
                checks.check_jwt_secret(name, secret)
        if self.metrics_token:
            checks.check_metrics_token(self.metrics_token)
        if self.jwks_url:
            checks.check_web_address("BILLING_JWKS_URL", self.jwks_url, encrypted=production)
        checks.check_origins(self.origins)
        return self

    @model_validator(mode="after")
    def _check_stripe(self) -> Self:
        checks.check_webhook_secrets(self.stripe_webhook_secrets)
        if self.livemode and self.environment is not Environment.PRODUCTION:
            raise ValueError(
                "BILLING_STRIPE_API_KEY is a live key while BILLING_ENVIRONMENT is not production; set "
                "BILLING_ENVIRONMENT=production, or use a test key",
            )
        return self

    @model_validator(mode="after")
    def _check_servers(self) -> Self:
        any_scheme = SINGLE_SCHEMES | SENTINEL_SCHEMES | CLUSTER_SCHEMES
        checks.check_redis_url("BILLING_REDIS_URL", self.redis_url, any_scheme)
        checks.check_redis_url("BILLING_QUEUE_URL", self.queue, SINGLE_SCHEMES | SENTINEL_SCHEMES)
        checks.check_redis_url("BILLING_CACHE_URL", self.cache, SINGLE_SCHEMES)
        if self.ledger_replicas and scheme_of(self.redis_url) in CLUSTER_SCHEMES:
            raise checks.invalid("BILLING_LEDGER_REPLICAS", "are not supported with a cluster")
        if self.environment is not Environment.PRODUCTION:
            return self
        if not (self.queue_url and self.cache_url):
            raise ValueError(
                "in production BILLING_QUEUE_URL and BILLING_CACHE_URL are servers of their own, "
                "because the ledger's never evicts; set both",
            )
        checks.check_apart(
            BILLING_REDIS_URL=self.redis_url,
            BILLING_QUEUE_URL=self.queue,
            BILLING_CACHE_URL=self.cache,
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

    @property
    def origins(self) -> list[str]:
        """Web origins other than the gateway's own whose pages may call it."""
        return [origin.strip() for origin in self.allowed_origins.split(",") if origin.strip()]


def load_settings() -> Settings:
    """Load the settings from the environment; StartupError when one is missing or invalid."""
    return _load(Settings)


def load_stripe_settings() -> StripeSettings:
    """As `load_settings`, for a command that needs Stripe alone."""
    return _load(StripeSettings)


def _load(kind: type[SettingsT]) -> SettingsT:
    known = [*(f"{PREFIX}{name.upper()}" for name in Settings.model_fields), *DEMO_VARIABLES]
    try:
        unknown = checks.check_names(os.environ, known)
        settings = kind()
    except ValidationError as error:
        raise StartupError("\n".join(map(checks.refusal, error.errors()))) from None
    except ValueError as error:
        raise StartupError(f"Refusing to start: {error}.") from None
    if unknown:
        log.warning("settings.unknown", names=unknown)
    return settings
