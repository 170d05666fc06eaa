"""The demo's Valkey on a busy machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.support.system import free_port


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the server in /proc")
def test_valkey_that_is_slow_for_a_moment_is_not_ended(tmp_path: Path) -> None:
    """A busy machine made the demo end its own ledger, and wait for it for ever."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "demo.valkey", str(port), str(tmp_path)])
    try:
        with Redis(port=port, socket_timeout=10) as client:
            _wait_for_pong(client)
            time.sleep(1)  # its own start has seen the answer too
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGSTOP)
            time.sleep(3)  # long enough for an answer to be missed
            os.kill(int(children[0]), signal.SIGCONT)

            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(3)
            assert client.ping()
    finally:
        process.terminate()
        process.wait(30)


def _wait_for_pong(client: Redis) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client.ping()
        except RedisError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("Valkey does not answer.")
