"""What a Stripe call costs, read off its path: the endpoint whose rate it shares, the object it locks.

Stripe limits each endpoint by method and path template: all invoices share the allowance of
``POST /v1/invoices/{invoice}/add_lines``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

# Path segments that only group collections (`/v1/billing_portal/sessions`).
NAMESPACES = frozenset(["billing", "billing_portal", "checkout", "test_helpers", "tax", "v1"])
# Words that stand where an id would (`/v1/invoices/create_preview`).
VERBS = frozenset(["create_preview", "preview", "search"])


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the budget sees it.

    *object* is the id that a mutation locks at Stripe: one at a time, or Stripe answers
    ``lock_timeout``. *lists* marks a list call, slow enough to meet Stripe's concurrency limits.
    """

    endpoint: str
    object: str | None
    write: bool
    lists: bool

    @classmethod
    def of(cls, method: str, path: str, params: Mapping[str, Any] | None = None) -> Self:
        """The call that ``method path`` makes; a create locks the customer it names in *params*."""
        template, ids = _template(path)
        write = method.upper() != "GET"
        customer = (params or {}).get("customer")
        return cls(
            endpoint=f"{method.upper()} {template}",
            object=(ids[0] if ids else customer) if write else None,
            write=write,
            lists=not write and not template.endswith("}"),
        )


def _template(path: str) -> tuple[str, list[str]]:
    shown, ids, collection = [""], list[str](), ""
    for segment in path.strip("/").split("/"):
        if collection and segment not in VERBS:
            shown.append("{" + collection.removesuffix("s") + "}")
            ids.append(segment)
            collection = ""
        else:
            shown.append(segment)
            collection = "" if segment in NAMESPACES | VERBS else segment
    return "/".join(shown), ids
