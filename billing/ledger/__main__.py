"""``python -m billing.ledger``: see ``command``."""

from billing.ledger.command import main

main()
