"""Logs: what failed and where, and never the text of an exception."""

import asyncio
import gc
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any

import structlog

from billing.logs import configure_logging
from resolvers.dataloaders.base import DataLoaders, load_once

SECRET = "ann@example.com"


@contextmanager
def logged_lines() -> Iterator[list[dict[str, Any]]]:
    """What a process with our configuration logs; the configuration is undone after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    lines: list[dict[str, Any]] = []
    with redirect_stderr(StringIO()) as text:
        configure_logging()
        yield lines
        gc.collect()
    lines += [json.loads(line) for line in text.getvalue().splitlines()]
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def _fail() -> None:
    raise ValueError(SECRET)


def test_caught_exception_has_its_type_and_place() -> None:
    """As `log.exception` gives it: True, in place of the exception."""
    with logged_lines() as lines:
        try:
            _fail()
        except ValueError:
            structlog.get_logger().exception("worker.flush_failed")

    [line] = lines
    assert (line["event"], line["fault"]) == ("worker.flush_failed", "ValueError")
    assert "test_logs.py" in line["at"][-1]


async def test_unretrieved_exceptions_are_logged_by_kind() -> None:
    """Of a future, a callback with its arguments, a context with a task, and a library's line."""
    loop = asyncio.get_running_loop()
    with logged_lines() as lines:
        loop.call_soon(lambda text: _fail(), SECRET)
        loop.create_future().set_exception(ValueError(SECRET))
        task = loop.create_task(asyncio.sleep(0), name=SECRET)
        context = {"message": "Odd", "exception": ValueError(SECRET), "task": task}
        loop.call_exception_handler(context)
        await asyncio.sleep(0.01)
        try:
            _fail()
        except ValueError:
            logging.getLogger("arq.worker").exception("%s failed, %s", "job", SECRET)
        logging.getLogger("stripe").info("error_message=%s", SECRET)

    assert SECRET not in json.dumps(lines)
    assert sorted(line["event"] for line in lines) == [
        *("%s failed, %s", "Exception in callback", "Future exception was never retrieved", "Odd"),
    ]
    assert [line["fault"] for line in lines] == ["ValueError"] * len(lines)


class _Failing(DataLoaders):
    @load_once
    async def fail(self) -> None:
        """Fail after the caller was cancelled."""
        await asyncio.sleep(0.01)
        _fail()


async def test_failed_load_whose_callers_left_is_no_complaint() -> None:
    """Its exception is retrieved, on both sides of the shield."""
    with logged_lines() as lines:
        caller = asyncio.create_task(_Failing().fail())
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await asyncio.sleep(0.05)

    assert lines == []
