"""Webhook endpoints, and the list of events for those who missed some."""

from fnmatch import fnmatchcase
from itertools import islice
from typing import Final

from sandbox.account import API_VERSION, Unit
from sandbox.defaults import Json
from sandbox.errors import refuse
from sandbox.forms import Params, merged
from sandbox.lists import page
from sandbox.shapes import shape
from sandbox.state import Record

MAX_ENDPOINTS: Final = 16
MAX_TYPES: Final = 20
DAYS_30: Final = 30 * 86400


def create(unit: Unit, params: Params) -> Json:
    """Register an endpoint; its version is fixed here and its secret is shown only here."""
    if len(unit.account.state.rows["webhook_endpoints"]) >= MAX_ENDPOINTS:
        raise refuse(f"You have reached the maximum of {MAX_ENDPOINTS} webhook endpoints.")
    secret = params.pop("secret", None) or unit.account.new_id("whsec_")
    kept = {"url": params["url"], "enabled_events": params["enabled_events"], "secret": secret}
    kept["api_version"] = params.get("api_version") or API_VERSION
    if params.get("description"):
        kept["description"] = params["description"]
    kept["metadata"] = merged(None, params.get("metadata") or {})
    endpoint = unit.new("webhook_endpoints", kept)
    return shape(unit, "webhook_endpoints", endpoint) | {"secret": secret}


def update(unit: Unit, params: Params, endpoint: str) -> Json:
    """Change where an endpoint is, what it hears, or whether it is on."""
    old = unit.get("webhook_endpoints", endpoint)
    changes = {k: v for k, v in params.items() if k in ("url", "enabled_events", "description")}
    if "metadata" in params:
        changes["metadata"] = merged(old.get("metadata"), params["metadata"])
    if "disabled" in params:
        changes["status"] = "disabled" if params["disabled"] else "enabled"
    return shape(unit, "webhook_endpoints", unit.put("webhook_endpoints", {**old, **changes}))


def delete(unit: Unit, _params: Params, endpoint: str) -> Json:
    """Delete an endpoint; what was on its way to it is dropped."""
    unit.get("webhook_endpoints", endpoint)
    unit.drop("webhook_endpoints", endpoint)
    return {"id": endpoint, "object": "webhook_endpoint", "deleted": True}


def list_endpoints(unit: Unit, params: Params) -> Json:
    """List webhook endpoints."""
    return page(unit, "webhook_endpoints", params, "/v1/webhook_endpoints")


def list_events(unit: Unit, params: Params) -> Json:
    """List events of the last 30 days, by type or by whether they were delivered."""
    kinds = params.get("types") or ([params["type"]] if params.get("type") else [])
    if len(kinds) > MAX_TYPES:
        raise refuse(f"You may list at most {MAX_TYPES} types.", param="types")
    success, waiting = params.get("delivery_success"), unit.account.state.waiting

    def wanted(event: Record) -> bool:
        named = not kinds or any(fnmatchcase(event["type"], kind) for kind in kinds)
        return named and success in (None, event["id"] not in waiting)

    return page(unit, "events", params, "/v1/events", wanted)


def prune_events(unit: Unit, most: int = 1000) -> None:
    """Forget events older than 30 days, and the oldest beyond the account's cap."""
    rows = unit.account.state.rows["events"]
    beyond = len(rows) - unit.account.settings.max_events
    if beyond <= 0 and (not rows or next(iter(rows.values()))["created"] + DAYS_30 > unit.now):
        return
    for place, (event, record) in enumerate(list(islice(rows.items(), most))):
        if place >= beyond and record["created"] + DAYS_30 > unit.now:
            break
        unit.drop("events", event)
