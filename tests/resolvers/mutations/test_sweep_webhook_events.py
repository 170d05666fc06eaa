"""`sweepWebhookEvents`: missing events are fetched."""

from redis.asyncio import Redis

from billing.job_queue import QUEUE_NAME
from tests.resolvers.conftest import SUPPORT, ApiHarness


async def test_sweep_enqueues_the_job_and_is_audited(api: ApiHarness, redis: Redis) -> None:
    """After an outage Support fetches missing events without waiting for the schedule."""
    sweep = (
        """mutation { sweepWebhookEvents(input: {reason: "we were down"}) { errors { code } } }"""
    )

    swept = (await api.query(SUPPORT, sweep))["sweepWebhookEvents"]

    assert swept == {"errors": []}
    [job] = await redis.zrange(QUEUE_NAME, 0, -1)
    assert b'"sweep"' in (await redis.get(b"arq:job:" + job) or b"")
    query = "query { auditLog { nodes { action reason outcome } } }"
    [entry] = (await api.query(SUPPORT, query))["auditLog"]["nodes"]
    assert entry == {"action": "sweepWebhookEvents", "reason": "we were down", "outcome": "DONE"}
