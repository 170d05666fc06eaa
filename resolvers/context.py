"""Who asks, and with what an answer is made: one `Context` for each operation."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import strawberry
from graphql import GraphQLError

from billing.budget import Lane
from billing.services import Services
from resolvers.dataloaders.cached_reads import Cost
from resolvers.dataloaders.selection import asks_for
from resolvers.dataloaders.stripe import Loaders
from schema.decorators import graphql_enum


@graphql_enum(
    CUSTOMER="The panel, on behalf of customers: sees those that its token names.",
    SUPPORT="Fly's Support: sees every customer, corrects, holds and releases.",
    METERING="A service that reports usage, and does nothing else.",
)
class Role(StrEnum):
    """What a token may do; the value is the token's `role` claim."""

    CUSTOMER = "customer"
    SUPPORT = "support"
    METERING = "metering"


def forbidden(*roles: Role) -> GraphQLError:
    """Who asks is known, and may not; *roles* may."""
    needed = " or ".join(sorted(roles))
    return GraphQLError(
        f"This needs a token with the role {needed}.", extensions={"code": "FORBIDDEN"}
    )


@dataclass(frozen=True, slots=True)
class Viewer:
    """The bearer of a verified token.

    *subject* is its ``sub``, *customers* the Stripe customers that it names (role customer),
    *expires_at* its ``exp`` in seconds since 1970. Who has no token does not get this far.
    """

    subject: str
    role: Role
    customers: frozenset[str] = frozenset()
    expires_at: float | None = None
    token_id: str | None = None

    def must_be(self, *roles: Role) -> None:
        """Let only *roles* pass; a GraphQLError (FORBIDDEN) for the others."""
        if self.role not in roles:
            raise forbidden(*roles)

    def may_see(self, customer: str) -> bool:
        """Whether *customer* is the viewer's to look at."""
        return self.role is Role.SUPPORT or (
            self.role is Role.CUSTOMER and customer in self.customers
        )


LANES = {
    Role.CUSTOMER: Lane.CUSTOMER,
    Role.METERING: Lane.CUSTOMER,
    Role.SUPPORT: Lane.SUPPORT,
}


@dataclass
class Context:
    """What every resolver has at hand; *loaders* serve one operation, or one event of a subscription.

    *connection_params* is where Strawberry leaves a WebSocket's init payload. *in_vain* counts a customer's
    looks at what is not there, or not theirs.
    """

    viewer: Viewer
    doors: Services
    loaders: Loaders
    connection_params: dict[str, Any] | None = field(default=None)
    in_vain: int = 0

    @classmethod
    def of(cls, viewer: Viewer, services: Services) -> Self:
        """A context for one operation by *viewer*."""
        return cls(viewer, services, Loaders(services, LANES[viewer.role]))

    @property
    def services(self) -> Services:
        """What is behind the loaders; nobody can vouch for an answer made with it, so it is not kept."""
        self.loaders.footprint.sound = False
        return self.doors

    def look_ahead(self, info: "Info") -> None:
        """Note what is asked for below this field that one GET of Stripe's can bring along."""
        self.loaders.with_cards |= asks_for(info, "defaultPaymentMethod")

    def renew(self, cost: Cost | None = None) -> None:
        """Fresh loaders: what was loaded before is not seen again, as after something was done.

        They go on counting the answer's cost, or begin with *cost*: each event is an answer of its own.
        """
        self.loaders.forget()
        self.loaders = Loaders(self.doors, LANES[self.viewer.role], cost or self.loaders.cost)


Info = strawberry.Info[Context, None]
