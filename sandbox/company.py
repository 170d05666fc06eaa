"""The account itself, and what others have in it: tax settings, portals, subscriptions, restricted keys.

The API only reads them; the control API changes them, as the Dashboard or another system would.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from sandbox.account import Account, Record
from sandbox.errors import StripeError
from sandbox.params import Params
from sandbox.sdk import KINDS

# Objects that every account has.
NEW_COMPANY: Final[Mapping[str, Record]] = {
    "account": {
        "id": "acct_sandbox",
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
    },
    "settings": {
        "id": "tax_settings",
        "status": "pending",
        "status_details": {"pending": {"missing_fields": ["head_office"]}},
    },
    "configurations": {"id": "bpc_1sandbox", "active": True, "is_default": True},
}


def complete(account: Account) -> None:
    """Give the account the objects that every account has."""
    with account.transaction():
        for kind, record in NEW_COMPANY.items():
            if not account.rows[kind]:
                account.put(kind, {"created": account.now, **record})


def put_object(account: Account, kind: str, fields: Record) -> Record:
    """Create an object, or change the one with the id in *fields*, without the checks of the API."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind: {kind}; there are: {', '.join(KINDS)}")
    with account.transaction():
        old = account.rows[kind].get(fields.get("id", ""))
        return account.change(kind, old, fields) if old else account.create(kind, fields)


def restrict_key(account: Account, key: str, rights: Mapping[str, str]) -> None:
    """Give the restricted *key* its *rights*: the first part of a path → ``read`` or ``write``."""
    if not key.startswith("rk_test_") or not set(rights.values()) <= {"read", "write"}:
        raise ValueError('give a key rk_test_… and rights such as {"customers": "read"}')
    with account.transaction():
        account.put("api_keys", {"id": key, "rights": dict(rights)})


def revoke_key(account: Account, key: str) -> None:
    """Make *key* unknown, as after it was rolled in the Dashboard."""
    with account.transaction():
        account.put("api_keys", {"id": key, "revoked": True, "rights": {}})


def check_rights(account: Account, key: str, endpoint: str) -> None:
    """StripeError 401 if *key* is revoked, 403 if it is restricted and may not call *endpoint*."""
    method, resource = endpoint.partition(" ")[0], endpoint.split("/")[2]
    restricted = account.rows["api_keys"].get(key)
    if restricted and restricted.get("revoked"):
        message = f"Expired API Key provided: {key[:8]}***"
        raise StripeError(401, message, code="api_key_expired")
    wanted = {"read", "write"} if method == "GET" else {"write"}
    if restricted and restricted["rights"].get(resource) not in wanted:
        message = f"The provided key '{key[:8]}***' does not have the required permissions for this endpoint on account 'acct_sandbox'."
        raise StripeError(403, message)


def _retrieve_only(kind: str, account: Account, _: Params) -> Record:
    return next(iter(account.rows[kind].values()))


ACTIONS: Final[Mapping[str, Any]] = {
    "GET /v1/account": partial(_retrieve_only, "account"),
    "GET /v1/tax/settings": partial(_retrieve_only, "settings"),
}
