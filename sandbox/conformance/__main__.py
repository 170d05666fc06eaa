"""``python -m sandbox.conformance``: try the sandbox's guesses in a Stripe account of test mode.

The key is read from STRIPE_TEST_KEY, so that it is in no shell history. Objects are made in the account and
cleaned up; finalized invoices stay, void. Exits with 1 if a guess is wrong. Takes some minutes.
"""

import argparse
import asyncio
import os
import sys

import httpx

from sandbox.conformance.account import TestAccount, WrongAccount
from sandbox.conformance.run import guesses, run


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m sandbox.conformance", description=__doc__)
    parser.add_argument("--base", default="https://api.stripe.com", help="address of the API")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("guesses", nargs="*", help="names of guesses; all if none is given")
    args = parser.parse_args()
    if unknown := set(args.guesses) - set(guesses()):
        parser.error(f"no such guess: {', '.join(sorted(unknown))}")
    sys.exit(asyncio.run(_run(args)))


async def _run(args: argparse.Namespace) -> int:
    async with httpx.AsyncClient(base_url=args.base, timeout=60) as http:
        try:
            account = TestAccount(http, os.environ.get("STRIPE_TEST_KEY", ""))
        except WrongAccount as error:
            sys.stderr.write(f"{error}\n")
            return 2
        report = await run(account, args.guesses)
    sys.stdout.write((report.as_json() if args.json else report.as_text()) + "\n")
    return 0 if report.is_clean else 1


main()
