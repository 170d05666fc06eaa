"""Replicas: an acknowledgement is withheld until enough of them have the write."""

from typing import Any

from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterPipeline

from billing.errors import LedgerUnavailable
from billing.ledger import keys
from billing.ledger.policy import ReplicaAck
from billing.redis_clients import UNREACHABLE


def append_wait(pipeline: Pipeline | ClusterPipeline, replica_ack: ReplicaAck) -> None:
    """Let *pipeline* end by waiting for the replicas; `check_wait` takes the answers.

    WAIT covers the writes of its own connection, and answers at once if there was none. A repeated
    request writes nothing, and what it repeats may be on no replica yet: hence a write before it.
    """
    pipeline.execute_command("SET", keys.replica_marker(), 1)
    pipeline.execute_command("WAIT", replica_ack.replicas, replica_ack.timeout_ms)


def check_wait(answers: list[Any], replica_ack: ReplicaAck) -> list[Any]:
    """Return *answers* without those of `append_wait`; LedgerUnavailable if too few replicas confirmed."""
    *answers, marked, confirmed = answers
    for answer in (marked, confirmed):
        if isinstance(answer, UNREACHABLE):
            raise answer
    if confirmed < replica_ack.replicas:
        raise LedgerUnavailable(
            "It may be recorded, but too few replicas confirmed it; send it again."
        )
    return answers
