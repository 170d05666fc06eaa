"""Logs: one JSON object a line on stderr, ids only; an exception as its type and frames, never its text."""

import logging
import re
import sys
from typing import Any

import orjson
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

# uvicorn's access log contains the query string, which may be a whole document with its variables.
SILENCED = ("uvicorn.access",)
REPR = re.compile(r"[\n(<{'\"]")  # where asyncio's description of an object begins


def configure_logging() -> None:
    """Send our own events and the libraries' messages through one handler."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _replace_traceback,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _cut_repr, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(_dumps),
            ],
        )
    )
    _replace_handlers(handler)


def _replace_handlers(handler: logging.Handler) -> None:
    """Remove the libraries' own handlers."""
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "arq", "arq.worker", *SILENCED):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name != "uvicorn.access"
    # httpx logs each request at INFO, with its URL, and Stripe's library each error, with its text.
    for name in ("httpx", "stripe"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _replace_traceback(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace a traceback by the exception's type and innermost frames."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    raised = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(raised, BaseException):
        event["fault"] = type(raised).__name__
        event["at"] = frames(raised)
    return event


def _cut_repr(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep the kind of a message of asyncio's or arq's alone: arguments, results and exceptions follow it."""
    record: logging.LogRecord = event["_record"]
    if record.name == "asyncio":
        event["event"] = REPR.split(event["event"], maxsplit=1)[0].strip()
    elif record.exc_info:
        event["event"] = record.msg
    return event


def frames(raised: BaseException) -> list[str]:
    """The files and lines of the traceback of *raised*, innermost last."""
    locations = []
    traceback = raised.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        locations.append(f"{file.rpartition('site-packages/')[2]}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return locations[-8:]


def _dumps(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()
