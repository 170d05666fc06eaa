"""``python -m billing``: see ``doctor.cli``."""

from billing.doctor.cli import main

main()
