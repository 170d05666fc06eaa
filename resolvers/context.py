"""The viewer, and the `Context` of one operation."""

import hashlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeVar

from graphql import GraphQLError

from billing.budget import Lane
from billing.services import Services
from resolvers.dataloaders.cached_reads import ReadStats
from resolvers.dataloaders.stripe import Loaders

T = TypeVar("T")


class Role(StrEnum):
    """Role of a token, from its `role` claim."""

    CUSTOMER = "customer"
    SUPPORT = "support"
    METERING = "metering"


def forbidden(*roles: Role) -> GraphQLError:
    """The error for a viewer without one of *roles*."""
    needed = " or ".join(sorted(roles))
    return GraphQLError(
        f"This needs a token with the role {needed}.", extensions={"code": "FORBIDDEN"}
    )


@dataclass(frozen=True, slots=True)
class Viewer:
    """The bearer of a verified token.

    *subject* is its ``sub``, *customers* the Stripe customers that it grants access to (role customer),
    *expires_at* its ``exp`` in seconds since 1970.
    """

    subject: str
    role: Role
    customers: frozenset[str] = frozenset()
    expires_at: float | None = None

    @property
    def person(self) -> str:
        """Pseudonym of the person or program: the same for all tokens with this role, subject and customers.

        The customers are part of it because a panel's backend may sign for all of them under one subject.
        """
        return _pseudonym(self.role, self.subject, *sorted(self.customers))

    @property
    def caller(self) -> str:
        """Pseudonym of the party whose share of a common resource the viewer uses.

        All people with the same customers are one party; Support and services stand for themselves.
        """
        if not self.customers:
            return self.person
        return _pseudonym("customers", *sorted(self.customers))

    def require_role(self, *roles: Role) -> None:
        """Raise a GraphQLError (FORBIDDEN) unless the viewer has one of *roles*."""
        if self.role not in roles:
            raise forbidden(*roles)

    def may_see(self, customer: str) -> bool:
        """True if the viewer has access to *customer*."""
        return self.role is Role.SUPPORT or (
            self.role is Role.CUSTOMER and customer in self.customers
        )


def _pseudonym(*parts: str) -> str:
    """Return a short hash of *parts*, which may be named in a Redis key or a log."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]


LANES = {
    Role.CUSTOMER: Lane.CUSTOMER,
    Role.METERING: Lane.CUSTOMER,
    Role.SUPPORT: Lane.SUPPORT,
}


@dataclass
class Context:
    """The context of one operation; *loaders* serve one operation, or one event of a subscription.

    Strawberry stores a WebSocket's init payload in *connection_params*. *missed_lookups* counts lookups of
    objects that do not exist or that the viewer may not see, *rows_computed* the rows of usage breakdowns.
    """

    viewer: Viewer
    _services: Services
    loaders: Loaders
    connection_params: dict[str, Any] | None = field(default=None)
    missed_lookups: int = 0
    rows_computed: int = 0

    @classmethod
    def for_viewer(cls, viewer: Viewer, services: Services) -> Self:
        """Create the context of one operation by *viewer*."""
        return cls(viewer, services, Loaders(services, LANES[viewer.role]))

    async def count_lookup(self, lookup: Awaitable[T]) -> T:
        """Await *lookup*, which counts as missed until it finds something, also for a client that leaves before."""
        self.missed_lookups += 1
        try:
            found = await lookup
        except Exception:
            self.missed_lookups -= 1
            raise
        self.missed_lookups -= bool(found)
        return found

    @property
    def livemode(self) -> bool:
        """True if the API key is a live one; it never changes, so a response may depend on it."""
        return self._services.settings.livemode

    def bypass_loaders(self) -> Services:
        """The services, bypassing the loaders; the response becomes uncacheable."""
        self.loaders.dependencies.cacheable = False
        return self._services

    def reset_loaders(self, stats: ReadStats | None = None) -> None:
        """Replace the loaders, so that everything is read again, as after a mutation.

        The new loaders continue the statistics, or start with *stats* (each subscription event has its own).
        """
        self.loaders.clear()
        self.loaders = Loaders(self._services, LANES[self.viewer.role], stats or self.loaders.stats)
