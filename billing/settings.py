"""Settings from the environment: frozen, typed; a missing or empty secret is refused with its cure.

``BILLING_ENVIRONMENT=production`` asks for separate queue and cache servers; ``development`` (the
default) lets one server stand for all three. Both ask for a durable ledger.
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

from billing.redis_clients import CLUSTER, ONE, SENTINEL, is_address

STRIPE_API_BASE = "https://api.stripe.com"
MIN_SECRET = 16
DAY = 86_400
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CURES = {
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
    """How strict a start is."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


Kind = TypeVar("Kind", bound="StripeSettings")


class SettingsRefused(SystemExit):
    """The environment lacks something; the message names the variable and the cure."""


class StripeSettings(BaseSettings):
    """What it takes to speak to Stripe; each field is the variable ``BILLING_<FIELD>`` in upper case."""

    model_config = SettingsConfigDict(env_prefix="BILLING_", frozen=True, extra="ignore")

    stripe_api_key: SecretStr
    stripe_api_base: str = STRIPE_API_BASE

    @model_validator(mode="after")
    def _leads_to_stripe(self) -> Self:
        _must_be_long("BILLING_STRIPE_API_KEY", self.stripe_api_key)
        _must_be_web_address("BILLING_STRIPE_API_BASE", self.stripe_api_base)
        if self.livemode and self.stripe_api_base != STRIPE_API_BASE:
            raise ValueError(
                "BILLING_STRIPE_API_BASE points away from Stripe while BILLING_STRIPE_API_KEY is a live "
                "key; unset the base address or use a test key",
            )
        return self

    @property
    def livemode(self) -> bool:
        """Whether the key is for real money; objects of the other mode are out of its reach."""
        return "_live_" in self.stripe_api_key.get_secret_value()


class Settings(StripeSettings):
    """Everything an operator can set."""

    environment: Environment = Environment.DEVELOPMENT
    stripe_webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode]
    redis_url: str
    queue_url: str = ""
    cache_url: str = ""
    jwt_secret: SecretStr | None = None
    jwks_url: str | None = None
    # Usage is acknowledged once so many replicas of the ledger's server have it too; refused with a cluster.
    ledger_replicas: NonNegativeInt = 0
    # Days for which the ledger keeps a month after its bill was final, and a line is found by its id;
    # usage that comes as late as it may (and `REMEMBERED_MS` in workers/flush/state.py) needs a hundred.
    ledger_retention: Annotated[int, Field(ge=100, le=3650)] = 100
    # Serve although the ledger's server may forget, or will not say whether it does (CONFIG forbidden);
    # `/readyz` then warns where it would refuse.
    accept_volatile_ledger: bool = False

    # The GraphQL edge. A JSON file, id (or SHA-256) to document: with it nothing else runs but for
    # Support. Web origins whose pages may call from the browser, comma-separated.
    trusted_documents: str = ""
    allowed_origins: str = ""

    # Where a worker answers Prometheus (the gateway's figures are at /metrics); port 0 is nowhere.
    host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, lt=65_536)] = 0

    # Metering: what is still accepted, in seconds before and after now; the ledger remembers no longer.
    usage_max_age: Annotated[int, Field(gt=0, le=38 * DAY)] = 35 * DAY
    usage_max_future: Annotated[int, Field(ge=0, le=4 * DAY)] = 300

    # Flushing unasked (docs/scheduling.md weighs staleness against calls): how long recorded usage may
    # wait before Stripe is told, in seconds; the money (minor units) that ends the wait earlier; the
    # quiet time between two looks at one customer; and the share by which customers are spread.
    flush_interval: Positive = 12 * 3600
    flush_stake: NonNegativeInt = 2_000
    flush_pause: NotNegative = 900
    flush_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    # How long a worker that died keeps others from its customer, in seconds: well above Stripe's
    # longest answer (20 s), because a slow worker is not a dead one.
    flush_lease: Positive = 60
    # Closing: how long after the period's end late usage still joins it, and how long nothing may
    # have been in doubt before an invoice is finalized (three times Stripe's longest answer).
    settle_window: NotNegative = 3600
    quiet_time: NotNegative = 600

    # Stripe's published rates per second (docs.stripe.com/rate-limits) and the share we use.
    stripe_rate: Positive = 100
    stripe_endpoint_rate: Positive = 25
    stripe_search_rate: Positive = 20
    stripe_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    # List calls at the same time (Stripe limits slow calls by concurrency, without naming a figure),
    # reads in 30 days (500 for each payment you take, 10,000 at least: set it to yours), and the
    # seconds that a call waits for room before it is told to come back.
    stripe_list_concurrency: PositiveInt = 8
    stripe_read_allowance: PositiveInt = 500_000
    stripe_max_wait: NotNegative = 5
    # Seconds after which a kept answer of Stripe's is read again though no webhook says that it changed.
    # A panel that somebody follows costs three reads each time; twenty minutes at most, because three
    # times as old it is shown once more, and what is an hour old only while Stripe is away.
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
    def _complete(self) -> Self:
        for secret in self.stripe_webhook_secrets:
            _must_be_long("BILLING_STRIPE_WEBHOOK_SECRETS", secret)
        if self.jwt_secret is not None:
            _must_be_long("BILLING_JWT_SECRET", self.jwt_secret)
        if self.jwks_url:
            _must_be_web_address("BILLING_JWKS_URL", self.jwks_url)
        for name, url, kinds in (
            ("BILLING_REDIS_URL", self.redis_url, ONE | SENTINEL | CLUSTER),
            ("BILLING_QUEUE_URL", self.queue, ONE | SENTINEL),
            ("BILLING_CACHE_URL", self.cache, ONE),
        ):
            if not is_address(url, kinds):
                raise ValueError(_cured(name, "names no server that can be used for it"))
        if self.ledger_replicas and is_address(self.redis_url, CLUSTER):
            raise ValueError(_cured("BILLING_LEDGER_REPLICAS", "cannot be kept by a cluster"))
        if not self.stripe_webhook_secrets:
            raise ValueError(_cured("BILLING_STRIPE_WEBHOOK_SECRETS", "names no secret"))
        if not (self.jwt_secret or self.jwks_url):
            raise ValueError(_cured("BILLING_JWT_SECRET", "is not set"))
        if self.environment is Environment.PRODUCTION and not (self.queue_url and self.cache_url):
            raise ValueError(
                "in production BILLING_QUEUE_URL and BILLING_CACHE_URL are servers of their own, "
                "because the ledger's never evicts; set both",
            )
        return self

    @property
    def queue(self) -> str:
        """Where arq's wake-ups live; the ledger's server outside production."""
        return self.queue_url or self.redis_url

    @property
    def cache(self) -> str:
        """Where the read cache lives; the ledger's server outside production."""
        return self.cache_url or self.redis_url


def load_settings() -> Settings:
    """Settings from the environment, or an exit with one sentence a person can act on."""
    return _load(Settings)


def load_stripe_settings() -> StripeSettings:
    """As `load_settings`, for a command that speaks to Stripe and to nobody else."""
    return _load(StripeSettings)


def _load(kind: type[Kind]) -> Kind:
    try:
        return kind()
    except ValidationError as error:
        raise SettingsRefused("\n".join(_sentence(each) for each in error.errors())) from None


def _sentence(error: object) -> str:
    fields = dict(error)  # type: ignore[call-overload]
    if not fields["loc"]:
        return f"Refusing to start: {str(fields['msg']).removeprefix('Value error, ')}."
    variable = f"BILLING_{str(fields['loc'][0]).upper()}"
    if fields["type"] == "missing":
        return f"Refusing to start: {_cured(variable, 'is not set')}."
    cure = f"; {CURES[variable]}" if variable in CURES else ""
    return f"Refusing to start: {variable} is invalid ({fields['msg']}){cure}."


def _must_be_long(name: str, secret: SecretStr) -> None:
    if len(secret.get_secret_value()) < MIN_SECRET:
        raise ValueError(_cured(name, f"is empty or shorter than {MIN_SECRET} characters"))


def _must_be_web_address(name: str, text: str) -> None:
    if not _is_web_address(text):
        raise ValueError(_cured(name, "is no http:// or https:// address"))


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _cured(variable: str, wrong: str) -> str:
    return f"{variable} {wrong}; {CURES[variable]}"
