"""Ids of syncs: ``sync_<customer>_<number>``."""

from billing.usage import CustomerId


def sync_id(customer: CustomerId, number: int) -> str:
    """Return the id of a sync; the customer, and so the slot, can be parsed from it."""
    return f"sync_{customer.removeprefix('cus_')}_{number}"


def parse_sync_id(sync_id: str) -> tuple[CustomerId, int] | None:
    """Return customer and number of a sync; None if *sync_id* is not an id of one."""
    customer, _, number = sync_id.removeprefix("sync_").rpartition("_")
    if not (sync_id.startswith("sync_") and customer and number.isdecimal() and number.isascii()):
        return None
    return CustomerId(f"cus_{customer}"), int(number)


def member_id(member: bytes) -> str:
    """Return the id of the sync that is *member*, ``customer|number``, of a shard's list."""
    customer, _, number = member.decode().rpartition("|")
    return sync_id(CustomerId(customer), int(number))
