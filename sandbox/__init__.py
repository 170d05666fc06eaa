"""A local double of Stripe for development and tests: one process, one account, no outside network.

A request passes through ``api`` (authentication, limits, faults, idempotency) → ``actions``
(routing) → ``params`` (validation by the SDK's types) → ``resources``, ``customers``, ``prices``,
``lines``, ``invoices`` (the operations) → ``account`` (transactions) → ``serializers`` (response
bodies) → ``webhooks`` (deliveries). ``sdk`` reads Stripe's operations and types from stripe-python,
``faults`` and ``limits`` simulate an unreliable Stripe, ``admin`` is the control API, ``pages`` are
the HTML pages. ``about.txt`` lists what is simulated, what is not, and what is a guess.
"""
