"""The build of GraphiQL's files hands npm no secret of ours."""

import os
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).parents[2] / "ide" / "build.py"
NPM = '#!/bin/sh\nenv > "{seen}"\nexit {code}\n'


def audit(folder: Path, code: int) -> "subprocess.CompletedProcess[str]":
    """Run the build's audit with an npm that writes down its environment and ends with *code*."""
    npm = folder / "npm"
    npm.write_text(NPM.format(seen=folder / "seen", code=code))
    npm.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "BILLING_STRIPE_API_KEY": "sk_test_secret_of_ours"}
    command = [sys.executable, str(BUILD), "--audit"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_npm_sees_no_setting_of_the_gateway(tmp_path: Path) -> None:
    """Packages run code; what they must not have is not there."""
    assert audit(tmp_path, 0).returncode == 0

    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen
    assert "BILLING_" not in seen


def test_failure_of_npm_is_one_sentence(tmp_path: Path) -> None:
    """Its own message stands above."""
    done = audit(tmp_path, 3)

    assert done.returncode == 1
    assert done.stderr == "npm audit ended with code 3.\n"
