"""Test clocks. Here the account has one clock: advancing a test clock advances it for everybody."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.account import DAY, Account, Record
from sandbox.errors import bad_request
from sandbox.params import Params


def _create(account: Account, params: Params) -> Record:
    params["frozen_time"] = max(params["frozen_time"], account.now)  # there is one time for all
    fields = {"status": "ready", "status_details": {}, "deletes_after": account.now + 30 * DAY}
    clock = account.create("test_clocks", params | fields)
    return _advance(account, {"frozen_time": params["frozen_time"]}, clock["id"])


def _advance(account: Account, params: Params, clock: str) -> Record:
    """Move the account's clock forward to the frozen time; timers run within a second."""
    old, meta = account.get("test_clocks", clock), account.rows["meta"]["account"]
    if params["frozen_time"] < old["frozen_time"]:
        raise bad_request("A test clock only moves forward.", param="frozen_time")
    ahead = max(params["frozen_time"] - account.time(), 0)
    account.put("meta", meta | {"offset": meta["offset"] + ahead})
    return account.change("test_clocks", old, {"frozen_time": params["frozen_time"]})


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/test_helpers/test_clocks": _create,
    "POST /v1/test_helpers/test_clocks/*/advance": _advance,
}
