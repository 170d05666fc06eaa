"""The core: usage is recorded in the ledger, flushed to Stripe, and Stripe's objects are cached.

In the order of the data flow; imports are limited by the contract "Inside billing" in ``pyproject.toml``. This
package imports no other package of the project.

    usage_ingestion   records deltas: ``usage_validation`` checks their syntax, then customer, price and ledger
    customer_registration   looks up customers that are new to the ledger
    ledger/           durable: usage, periods, holds, adjustments and syncs of every customer
    invoicing/        pure functions: the lines that an invoice must have, and the requests that produce them
    stripe/           the only client of Stripe, its objects as records, and the price catalog
    budget/           rate limits for Stripe, shared by all processes
    cache/            disposable: Stripe's objects, valid until a webhook or a write invalidates them
    event_ingestion   receives Stripe's events, by webhook or by polling
    events/           the inbox of events, and the effects of each
    change_feed       notifies subscribers of a customer's changes
    job_queue         the only module that enqueues jobs
    audit/            log of Support's actions, written before each action
    services          composition root: creates and connects these objects

Shared value objects: ``usage``, ``money``, ``amount_limit``, ``errors``, ``pagination``, ``settings``. ``redis_clients`` creates Redis
clients, ``logs`` configures logging; ``shutdown_signal`` and
``deadline`` are asyncio helpers.
"""
