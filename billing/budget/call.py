"""Stripe calls as the budget counts them: the endpoint whose rate limit applies, and the locked object.

Stripe limits each endpoint by method and path template: all invoices share the rate limit of
``POST /v1/invoices/{invoice}/add_lines``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

# Path segments that only group collections (`/v1/billing_portal/sessions`).
NAMESPACES = frozenset(["billing", "billing_portal", "checkout", "test_helpers", "tax", "v1"])
# Segments in the position of an id (`/v1/invoices/create_preview`).
VERBS = frozenset(["create_preview", "preview", "search"])


@dataclass(frozen=True, slots=True)
class StripeCall:
    """One request to Stripe.

    *locked_object* is the id that a mutation locks at Stripe: a second mutation of it meanwhile gets a
    ``lock_timeout``. A list call is slow enough to reach Stripe's concurrency limit.
    """

    endpoint: str
    locked_object: str | None
    is_write: bool
    is_list: bool

    @classmethod
    def from_request(cls, method: str, path: str, params: Mapping[str, Any] | None = None) -> Self:
        """The call of a request; creating an object locks the customer named in *params*."""
        template, ids = _template(path)
        write = method.upper() != "GET"
        customer = (params or {}).get("customer")
        return cls(
            endpoint=f"{method.upper()} {template}",
            locked_object=(ids[0] if ids else customer) if write else None,
            is_write=write,
            is_list=not write and not template.endswith("}"),
        )


def _template(path: str) -> tuple[str, list[str]]:
    segments, ids, collection = [""], list[str](), ""
    for segment in path.strip("/").split("/"):
        if collection and segment not in VERBS:
            segments.append("{" + collection.removesuffix("s") + "}")
            ids.append(segment)
            collection = ""
        else:
            segments.append(segment)
            collection = "" if segment in NAMESPACES | VERBS else segment
    return "/".join(segments), ids
