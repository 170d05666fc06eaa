"""Logs: one JSON object a line on stderr, ids only. An exception is its type and where, never its text."""

import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

# uvicorn's access log has the query string, which may be a whole document with its variables.
SILENCED = ("uvicorn.access",)


def configure_logging() -> None:
    """Send our own events and the libraries' messages the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_text,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(_dumps),
            ],
        )
    )
    _take_over(handler)


def _take_over(handler: logging.Handler) -> None:
    """Leave no library a handler of its own."""
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "arq", "arq.worker", *SILENCED):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name != "uvicorn.access"
    # httpx tells of each request at INFO, with its URL.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _without_text(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """An exception's type and innermost frames in the place of its traceback."""
    given = event.pop("exc_info", None)
    raised = given[1] if isinstance(given, tuple) else given
    if isinstance(raised, BaseException):
        event["fault"] = type(raised).__name__
        event["at"] = frames(raised)
    return event


def frames(raised: BaseException) -> list[str]:
    """Where *raised* came from, innermost last: files and lines."""
    found = []
    traceback = raised.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        found.append(f"{file.rpartition('site-packages/')[2]}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return found[-8:]


def _dumps(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()
