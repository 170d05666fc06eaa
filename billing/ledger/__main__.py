"""``python -m billing.ledger``: see ``cli``."""

from billing.ledger.cli import main

main()
