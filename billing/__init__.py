"""Usage is remembered (ledger), told to Stripe (stripe_api), and Stripe's answers are kept (cache).

Read in the data's order: ``usage`` and ``money`` are the words, ``metering`` is where a delta comes in
(``reported``: as it was sent), ``ledger`` counts it, ``plan`` says what Stripe has to be told, ``flights`` puts it into requests,
``stripe_api`` makes them within ``budget``, ``records`` and ``cache`` keep what Stripe answered,
``bill`` adds it all up. The other way, ``inbox`` keeps what Stripe announces, ``effects`` says what
follows, ``changes`` tells who watches; ``audit`` keeps what Support did. ``services`` is the one place
where these objects meet. Nothing here imports another of our packages.
"""
