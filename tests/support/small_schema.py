"""A schema with one of everything that the GraphQL endpoint handles, to test it without billing."""

import asyncio
from collections.abc import AsyncGenerator
from enum import Enum

import strawberry
from graphql import GraphQLError

from resolvers.permissions import mark_all_unguarded

SECRET = "redis://:hunter2@ledger"


class EventRecorder:
    """Records what happens on the server: contexts made, operations cancelled, generators closed."""

    def __init__(self) -> None:
        self.contexts: list[object] = []
        self.entries: list[str] = []
        self.produced = 0
        self.released = asyncio.Event()


class Context:
    """The context of one operation."""

    def __init__(self, events: EventRecorder) -> None:
        self.events = events
        events.contexts.append(self)


Info = strawberry.Info[Context, None]


@strawberry.enum
class Colour(Enum):
    """An enum, for suggestions."""

    CRIMSON = "crimson"
    SCARLET = "scarlet"


@strawberry.type
class Leaf:
    """An item of a connection."""

    id: strawberry.ID
    name: str

    @strawberry.field
    def again(self) -> "Leaf":
        """The same object, so that queries can nest."""
        return self


@strawberry.type
class Fault:
    """An object that cannot be shown."""

    @strawberry.field
    def text(self) -> str | None:
        """Refuses."""
        raise GraphQLError("No.")


@strawberry.type
class LeafConnection:
    """A page."""

    nodes: list[Leaf]


@strawberry.type
class Query:
    """Fields of every kind that the endpoint handles."""

    @strawberry.field
    def hello(self, name: str = "world") -> str:
        """The simplest field."""
        return f"hello {name}"

    @strawberry.field
    def leaf(self) -> Leaf:
        """One object."""
        return Leaf(id=strawberry.ID("1"), name="one")

    @strawberry.field
    def leaves(self, first: int = 20, last: int | None = None) -> LeafConnection:
        """A page of objects."""
        return LeafConnection(
            nodes=[Leaf(id=strawberry.ID(str(n)), name="n") for n in range(min(first, 3))]
        )

    @strawberry.field
    def crowd(self) -> list[Leaf]:
        """A list without a size, which is longer than anybody guesses."""
        return [Leaf(id=strawberry.ID(str(n)), name="n") for n in range(300)]

    @strawberry.field
    def faults(self) -> list["Fault"]:
        """A list whose items all fail."""
        return [Fault() for _ in range(300)]

    @strawberry.field
    def colour(self, of: Colour) -> Colour:
        """Takes an enum."""
        return of

    @strawberry.field
    def fault(self) -> str | None:
        """Raises an unexpected exception."""
        raise RuntimeError(SECRET)

    @strawberry.field
    def fatal(self) -> str:
        """Raises an unexpected exception in a non-null field."""
        raise RuntimeError(SECRET)

    @strawberry.field
    def refused(self) -> str | None:
        """Raises a GraphQLError."""
        raise GraphQLError("Not today.", extensions={"code": "FORBIDDEN"})

    @strawberry.field
    async def slow(self, info: Info) -> str:
        """Never returns by itself."""
        info.context.events.entries.append("slow begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            info.context.events.entries.append("slow cancelled")
            raise
        return "never"


@strawberry.type
class Mutation:
    """Mutations."""

    @strawberry.mutation
    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @strawberry.mutation
    async def work(self, info: Info) -> str:
        """Do something in two steps."""
        info.context.events.entries.append("work begun")
        await info.context.events.released.wait()
        info.context.events.entries.append("work done")
        return "done"


@strawberry.type
class Tick:
    """An event with a field that may never resolve."""

    number: int

    @strawberry.field
    async def late(self) -> int:
        """Resolves for every event but the first."""
        if self.number == 1:
            await asyncio.Event().wait()
        return self.number


@strawberry.type
class Subscription:
    """Subscriptions."""

    @strawberry.subscription
    async def count(self, to: int = 3) -> AsyncGenerator[int, None]:
        """Count from 1."""
        for number in range(1, to + 1):
            yield number

    @strawberry.subscription
    async def ticks(self) -> AsyncGenerator[Tick, None]:
        """Two ticks."""
        for number in (1, 2):
            yield Tick(number=number)

    @strawberry.subscription
    async def silence(self, info: Info) -> AsyncGenerator[int, None]:
        """One event, then nothing until the client disconnects."""
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            info.context.events.entries.append("silence closed")

    @strawberry.subscription
    async def flood(self, info: Info) -> AsyncGenerator[str, None]:
        """Large events without end."""
        while True:
            info.context.events.produced += 1
            yield "x" * 10_000

    @strawberry.subscription
    async def broken(self) -> AsyncGenerator[int, None]:
        """Fails after the first event."""
        yield 1
        raise RuntimeError(SECRET)


schema = strawberry.Schema(query=Query, mutation=Mutation, subscription=Subscription)
mark_all_unguarded(schema._schema)
