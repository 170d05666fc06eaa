"""Base class of the ledger's parts."""

from typing import Any

from billing.invoicing.snapshot import Lease
from billing.ledger import keys
from billing.ledger.policy import LedgerPolicy
from billing.ledger.server import Server


class LedgerPart:
    """One part of the ledger; all parts share the server and the policy."""

    def __init__(self, server: Server, policy: LedgerPolicy) -> None:
        self._server = server
        self._policy = policy

    def _flush_interval(self) -> int:
        """Return the flush interval with jitter (ms)."""
        return self._policy.interval(self._server.new_nonce())

    async def _run_acknowledged(self, name: str, key: keys.Key, *args: str | bytes | int) -> Any:
        """Run a script that nobody repeats if its write is lost: wait for the replicas as usage does."""
        return (await self._server.run_scripts([(name, key, args)], self._policy.replica_ack))[0]

    async def _run_fenced(self, name: str, lease: Lease, *args: str | bytes | int) -> Any:
        key = keys.customer(lease.customer)
        return await self._server.run_script(name, key, str(lease.period), lease.fence, *args)
