"""``python -m billing.ledger``: see ``command``."""

from billing.ledger.cli import main

main()
