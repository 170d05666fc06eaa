"""The draft: what a month's usage comes to, and what Stripe has to be told of it. Pure; nothing here waits.

A ``snapshot`` is what the ledger knows, ``seen`` what Stripe shows, told from other people's lines by our
``marks``. ``schedule`` says when the difference is worth a call, ``plan`` what it is, ``flights`` puts it into
requests; ``carry`` takes what a finalized invoice left unbilled into the next month, ``bill`` adds it all up.
"""
