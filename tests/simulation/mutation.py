"""A protection that is switched off in the product's own code: a method replaced, a line of Lua rewritten."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from typing import Any

from billing.ledger import server


@dataclass(frozen=True)
class Mutation:
    """One protection off. *kinds* are the troubles (their names in ``run.KINDS``) that it protects from."""

    name: str
    off: Callable[[], Any]
    kinds: tuple[str, ...] = ("plain",)

    def __str__(self) -> str:
        return self.name


@contextmanager
def lua(script: str, line: str, instead: str) -> Iterator[None]:
    """*line* of the Lua *script* reads *instead*."""
    before = server._script_text, server._script_sha
    if line not in (server.SCRIPTS / f"{script}.lua").read_text():
        raise LookupError(f"{line!r} is no longer in {script}.lua")

    @cache
    def text(name: str) -> str:
        return before[0](name).replace(line, instead)

    @cache
    def digest(name: str) -> str:
        return sha1(text(name).encode(), usedforsecurity=False).hexdigest()

    server._script_text, server._script_sha = text, digest
    try:
        yield
    finally:
        server._script_text, server._script_sha = before


@contextmanager
def instead_of(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """*owner*'s *name* is *replacement*."""
    before = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, before)
