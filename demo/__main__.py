"""``python -m demo up`` and ``python -m demo token``; `make` calls both."""

import argparse

from demo.tokens import ROLES, token


def main() -> None:
    """Run the command given on the command line."""
    parser = argparse.ArgumentParser(
        prog="demo", description="The gateway on one machine, with demo data."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="run everything until Ctrl-C")
    for_token = commands.add_parser("token", help="print one token")
    for_token.add_argument("--role", default="", help=" | ".join(ROLES))
    for_token.add_argument(
        "--customer", default="", help="the customer's Stripe id (role customer)"
    )
    args = parser.parse_args()
    if args.command == "up":
        from demo.up import up  # noqa: PLC0415 a token needs no import of the gateway

        up()
    else:
        print(token(args.role, [args.customer] if args.customer else []))


main()
