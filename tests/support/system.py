"""The gateway and its workers as real processes, for tests that kill them or look at them from outside."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import httpx
import jwt
from pydantic import SecretStr

from billing.settings import Settings
from tests.support.forking import Forked
from tests.support.wait import wait_until


def http_client(**options: Any) -> httpx.AsyncClient:
    """A client for plain HTTP: without verify=False each would load all certificates first."""
    return httpx.AsyncClient(verify=False, trust_env=False, **options)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(settings: Settings) -> dict[str, str]:
    """*settings* as the environment that a process of ours reads them from."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {
        **os.environ,
        **{f"BILLING_{name.upper()}": _text(value) for name, value in given.items()},
    }


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(_text(item) for item in value)
    return str(value)


def from_nothing(
    command: Sequence[str], env: Mapping[str, str], log: Path
) -> "subprocess.Popen[bytes]":
    """Start ``python -m COMMAND``, its output in *log*."""
    with log.open("wb") as file:
        return subprocess.Popen([sys.executable, "-m", *command], env=env, stdout=file, stderr=file)


@dataclass
class System:
    """Gateway and workers on one ledger and one Stripe; `start_worker` may be called again after a kill."""

    launch: ClassVar[Callable[..., "subprocess.Popen[bytes] | Forked"]] = staticmethod(from_nothing)
    settings: Settings
    logs: Path
    port: int = field(default_factory=free_port)
    running: list["subprocess.Popen[bytes] | Forked"] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The gateway's base address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *command: str) -> "subprocess.Popen[bytes] | Forked":
        """Start ``python -m COMMAND``."""
        log = self.logs / f"{command[0]}-{len(self.running)}.log"
        process = self.launch(command, environment(self.settings), log)
        self.running.append(process)
        return process

    def start_worker(self) -> "subprocess.Popen[bytes] | Forked":
        """Start one arq worker."""
        return self.start("arq", "workers.main.WorkerSettings")

    async def start_gateway(self) -> "subprocess.Popen[bytes] | Forked":
        """Start the gateway and wait until it is ready."""
        process = self.start(
            *(
                "uvicorn",
                "--factory",
                "gateway.app:create_app",
                "--no-access-log",
                "--port",
                str(self.port),
            ),
        )

        async def ready() -> bool:
            assert process.poll() is None, "the gateway ended; see its log"
            async with http_client() as client:
                with contextlib.suppress(httpx.HTTPError):
                    return (await client.get(f"{self.url}/readyz")).is_success
            return False

        await wait_until(ready, "the gateway is ready", seconds=90)
        return process

    def stop(self) -> None:
        """End every process as an operator would, and see that it goes."""
        for process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def token(
        self,
        role: str,
        customers: Sequence[str] = (),
        subject: str = "tester",
        seconds: int = 3600,
    ) -> str:
        """A token as Fly's issuer would sign it, good for so many *seconds*."""
        assert self.settings.jwt_secret is not None
        claims = {
            "sub": subject,
            "role": role,
            "aud": "fly-billing",
            "exp": int(time.time()) + seconds,
        }
        if customers:
            claims["customers"] = list(customers)
        return jwt.encode(claims, self.settings.jwt_secret.get_secret_value(), algorithm="HS256")

    @contextlib.asynccontextmanager
    async def caller(self, role: str, *customers: str) -> AsyncIterator["Caller"]:
        """Somebody with a token of *role*."""
        headers = {"Authorization": f"Bearer {self.token(role, customers)}"}
        async with http_client(base_url=self.url, headers=headers, timeout=30) as client:
            yield Caller(client)


@dataclass
class Caller:
    """A client with a token."""

    http: httpx.AsyncClient

    async def execute(self, query: str, **variables: Any) -> dict[str, Any]:
        """The ``data`` of a GraphQL operation; any error fails the test."""
        answer = await self.http.post("/graphql", json={"query": query, "variables": variables})
        body = answer.json()
        assert "errors" not in body, body
        data: dict[str, Any] = body["data"]
        return data
