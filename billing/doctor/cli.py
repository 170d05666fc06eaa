"""``python -m billing doctor``: check the Stripe account of ``BILLING_STRIPE_API_KEY``; nothing is written.

Exits with 0 if the gateway can bill with the account, 1 if there is a problem, 2 if Stripe cannot be read.
A restricted key with the right to read is enough; a right that it lacks leaves a check undone, and is named.
"""

import argparse
import asyncio
import sys

from billing.doctor.account import AccountUnreachable, StripeAccount
from billing.doctor.report import examine
from billing.settings import StripeSettings, load_stripe_settings

UNREACHABLE = 2


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m billing", description="Commands of the gateway.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="check a Stripe account",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="print JSON instead of text")
    doctor.add_argument(
        "--webhook-url", help="where Stripe reaches POST /webhooks/stripe", metavar="URL"
    )
    args = parser.parse_args()
    sys.exit(asyncio.run(_run(load_stripe_settings(), args)))


async def _run(settings: StripeSettings, args: argparse.Namespace) -> int:
    key = settings.stripe_api_key.get_secret_value()
    async with StripeAccount(key, settings.stripe_api_base, args.webhook_url) as account:
        try:
            report = await examine(account)
        except AccountUnreachable as error:
            sys.stderr.write(f"Nothing was checked: {error}.\n")
            return UNREACHABLE
    sys.stdout.write((report.as_json() if args.json else report.as_text()) + "\n")
    return report.exit_code
