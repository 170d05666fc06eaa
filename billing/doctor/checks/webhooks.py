"""The webhook endpoint: without it panels are as fresh as the sweep of missed events."""

from urllib.parse import urlsplit

from billing.doctor.account import CannotRead, StripeAccount, StripeObject
from billing.doctor.findings import Checks, Finding, Findings, Severity, examples, of, ok
from billing.events.effects import EFFECTS
from billing.stripe import API_VERSION

ROUTE = "/webhooks/stripe"
CREATE = "Run `python -m webhooks URL --create`."


async def _endpoints(account: StripeAccount) -> list[StripeObject]:
    """The endpoints of this gateway: at the URL given, or at any that ends in our route."""
    found = (await account.page("/v1/webhook_endpoints")).items
    wanted = account.webhook_url
    if wanted:
        return [e for e in found if e["url"].rstrip("/") == wanted.rstrip("/")]
    return [e for e in found if urlsplit(e["url"]).path.rstrip("/").endswith(ROUTE)]


async def _enabled(account: StripeAccount) -> list[StripeObject]:
    enabled = [e for e in await _endpoints(account) if e["status"] == "enabled"]
    if not enabled:
        raise CannotRead("there is no enabled endpoint")
    return enabled


async def check_endpoint(account: StripeAccount) -> Findings:
    """Stripe tells changes to one endpoint."""
    found = await _endpoints(account)
    if found:
        return ok(f"Stripe has an endpoint of this gateway: {examples([e['url'] for e in found])}.")
    where = account.webhook_url or f"…{ROUTE}"
    return [Finding(Severity.PROBLEM, f"Stripe has no endpoint at {where}.", CREATE)]


async def check_enabled(account: StripeAccount) -> Findings:
    """Stripe disables an endpoint that failed for days."""
    disabled = [e["id"] for e in await _endpoints(account) if e["status"] != "enabled"]
    return of(Severity.PROBLEM, disabled, "Disabled", CREATE, "No endpoint is disabled.")


async def check_version(account: StripeAccount) -> Findings:
    """An endpoint's version is fixed when it is created."""
    if any(e["api_version"] == API_VERSION for e in await _enabled(account)):
        return ok(f"An enabled endpoint speaks API version {API_VERSION}.")
    return [
        Finding(Severity.PROBLEM, f"No enabled endpoint speaks API version {API_VERSION}.", CREATE)
    ]


async def check_missing_events(account: StripeAccount) -> Findings:
    """A type that is not sent is noticed by the sweep only."""
    sent = {type_ for e in await _enabled(account) for type_ in e["enabled_events"]}
    missing = sorted(EFFECTS.keys() - sent) if "*" not in sent else []
    return of(Severity.PROBLEM, missing, "Not sent", CREATE, "Every event that matters is sent.")


async def check_unused_events(account: StripeAccount) -> Findings:
    """Each delivery costs work on both sides."""
    sent = {type_ for e in await _enabled(account) for type_ in e["enabled_events"]}
    unused = sorted(sent - EFFECTS.keys())
    return of(Severity.NOTICE, unused, "Sent and not used", CREATE, "No unused event is sent.")


async def check_duplicates(account: StripeAccount) -> Findings:
    """Two endpoints of one version double the deliveries; the gateway processes each event once."""
    same = [e["id"] for e in await _enabled(account) if e["api_version"] == API_VERSION][1:]
    cure = "Delete all but one in the Dashboard."
    return of(Severity.WARNING, same, "More than one endpoint", cure, "No event is sent twice.")


async def check_https(account: StripeAccount) -> Findings:
    """Stripe sends live events over https only."""
    plain = [e["url"] for e in await _endpoints(account) if urlsplit(e["url"]).scheme != "https"]
    severity = Severity.PROBLEM if account.is_live else Severity.NOTICE
    cure = "Use an https address." if account.is_live else ""
    return of(severity, plain, "Not over https", cure, "Events are sent over https.")


async def check_undelivered(account: StripeAccount) -> Findings:
    """Failed deliveries of the last days show an endpoint that does not answer."""
    page = await account.page("/v1/events", {"delivery_success": "false"})
    late = sorted({event["type"] for event in page.items if event["type"] in EFFECTS})
    if not late:
        return ok("No event that matters waits for delivery.")
    count = f"{len(page.items)}{'' if page.complete else ' or more'}"
    return [
        Finding(
            Severity.WARNING,
            f"{count} events are not delivered, among them {examples(late)}.",
            "Look at the endpoint's deliveries in the Dashboard; the sweep of missed events takes them in.",
        )
    ]


CHECKS: Checks = {
    "webhook.endpoint": check_endpoint,
    "webhook.enabled": check_enabled,
    "webhook.version": check_version,
    "webhook.events_missing": check_missing_events,
    "webhook.events_unused": check_unused_events,
    "webhook.duplicates": check_duplicates,
    "webhook.https": check_https,
    "webhook.undelivered": check_undelivered,
}
