"""The caller on whose behalf Stripe is called: a pseudonym, or "" for the gateway itself, workers and Support."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_caller: ContextVar[str] = ContextVar("stripe_caller", default="")


@contextmanager
def calls_on_behalf_of(caller: str) -> Iterator[None]:
    """Count the calls made inside, also by tasks started inside, against the share of *caller*."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def current_caller() -> str:
    """The caller of this task."""
    return _caller.get()
