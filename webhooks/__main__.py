"""``python -m webhooks``: see ``setup``."""

from webhooks.setup import main

main()
