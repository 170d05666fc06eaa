"""``python -m billing doctor``: output and exit codes."""

import json
import os
import subprocess
import sys

from stripe import StripeClient

from tests.billing.doctor.conftest import RESTRICTED
from tests.support.stripe_sandbox import StripeSandbox


def run(base: str, key: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command with nothing but Stripe's address and key in its environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    env |= {"BILLING_STRIPE_API_KEY": key, "BILLING_STRIPE_API_BASE": base}
    command = [sys.executable, "-m", "billing", "doctor", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


async def test_command_prints_findings_and_exits_by_them(
    sandbox: StripeSandbox, client: StripeClient, customer: str
) -> None:
    """It needs no ledger, no webhook secret and no running server."""
    sound = run(sandbox.url, RESTRICTED)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert "0 problem" in sound.stdout

    await sandbox.put_object("configurations", id="bpc_1sandbox", active=False)
    ill = run(sandbox.url, RESTRICTED, "--json")
    assert ill.returncode == 1
    report = json.loads(ill.stdout)
    [problem] = [found for found in report["checks"] if found["severity"] == "problem"]
    assert problem["check"] == "account.portal"
    assert problem["cure"]
    assert report["counts"]["problem"] == 1


async def test_command_says_why_it_could_not_begin(sandbox: StripeSandbox) -> None:
    """A key that was revoked, and a server that is not there: one sentence, exit code 2."""
    await sandbox.revoke_key(RESTRICTED)
    refused = run(sandbox.url, RESTRICTED)
    silent = run("http://127.0.0.1:9", RESTRICTED)

    for done in (refused, silent):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Nothing was checked: ")
        assert done.stderr.count("\n") == 1
