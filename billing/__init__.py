"""Usage is remembered (ledger), told to Stripe (stripe_api), and Stripe's answers are kept (cache).

The rooms in the data's order; each names what is in it, and a room imports only those below it in the
contract "Inside billing" of ``pyproject.toml``. None imports another package of ours.

    metering      where a delta comes in: checked (``reported``: as it was sent), priced, counted once
    ledger/       door 1, durable: what everybody owes, and the syncs, one flush into Stripe each
    draft/        what a month's bill has to be, and what Stripe has to be told for that; pure
    stripe_api/   door 2, the only caller of Stripe; its objects as records, its prices as the catalogue
    budget/       who may call Stripe now: one allowance, shared by every process
    cache/        door 3, disposable: what Stripe last answered, served while nothing has changed since
    intake        where Stripe's events come in, delivered or swept up
    inbox/        keeps the events until they are worked on; ``effects`` says what follows from each
    changes       tells who watches a customer that something changed
    wakeups       tells a worker that there is something to do: the only module that enqueues
    audit/        what Support did, written down before it is done
    services      the one place where these objects meet

And the words that all of them use: ``usage`` and ``money``, ``errors``, ``pages``, ``settings``; ``keys`` is
every Redis key of the ledger, ``servers`` makes clients of Redis by address, ``redis_reply`` is about what they
answer; ``logs`` is how all of it is logged.
"""
