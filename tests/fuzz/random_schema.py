"""Random Strawberry schemas: objects, interfaces, unions, nested lists, enums, scalars, and fields of every kind."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from typing import Annotated, Any, Union

import strawberry
from graphql import GraphQLSchema
from strawberry.schema.config import StrawberryConfig

from resolvers.permissions import mark_all_unguarded
from schema import fast_resolvers
from schema.build import DISABLE_ERROR_PROPAGATION
from schema.scalars import SCALARS
from tests.fuzz.sick_values import LEAVES, Colour, Shape, make_object, make_value, shapes_of

strawberry.enum(Colour)
Info = strawberry.Info[None, None]


@dataclass
class Built:
    """Random types, in a schema as Strawberry makes it and in one as the gateway does."""

    stock: GraphQLSchema
    planned: GraphQLSchema
    roots: dict[str, type]
    seed: int
    sickness: float

    def root_value(self, operation: str) -> Any:
        """Return the root value of an *operation* type, with data that are the same each time."""
        return make_object(self.roots[operation], f"{self.seed}:{operation}", self.sickness)


def build_random_schema(seed: int, sickness: float) -> Built:
    """Return the schema number *seed*, whose values are wrong with probability *sickness*."""
    choose = Random(seed)
    types = _Types(choose)
    types.declare()
    config = StrawberryConfig(scalar_map=SCALARS)
    schemas = [
        strawberry.Schema(
            query=types.roots["query"],
            mutation=types.roots["mutation"],
            subscription=types.roots["subscription"],
            types=types.objects,
            config=config,
        )
        for _ in range(2)
    ]
    fast_resolvers.install(schemas[1])
    stock, planned = [schema._schema for schema in schemas]
    for core in (stock, planned):
        core.directives = (*core.directives, DISABLE_ERROR_PROPAGATION)
    mark_all_unguarded(planned)
    return Built(stock, planned, types.roots, seed, sickness)


@dataclass
class _Types:
    choose: Random
    interfaces: list[type] = field(default_factory=list)
    objects: list[type] = field(default_factory=list)
    roots: dict[str, type] = field(default_factory=dict)

    def declare(self) -> None:
        """Make all classes first, so that any field may have any of them as its type."""
        choose = self.choose
        self.interfaces = [_new_class(f"Node{n}") for n in range(choose.randint(1, 2))]
        for number in range(choose.randint(3, 6)):
            bases = choose.sample(self.interfaces, choose.randint(0, len(self.interfaces)))
            self.objects.append(_new_class(f"Thing{number}", *bases))
        for interface in self.interfaces:
            self._add_fields(interface, choose.randint(1, 3), interface.__name__.lower())
            strawberry.interface(interface)
        for object_ in self.objects:
            self._add_fields(object_, choose.randint(2, 6), "f")
            strawberry.type(object_)
        for operation in ("query", "mutation", "subscription"):
            root = self.roots[operation] = _new_class(operation.capitalize())
            self._add_fields(root, choose.randint(3, 6), operation[0])
            strawberry.type(root)

    def _add_fields(self, class_: type, number: int, prefix: str) -> None:
        class_.__annotations__ = {}
        for index in range(number):
            name = f"{prefix}{index}"
            annotation, shape = self._random_type()
            shape = replace(shape, others=tuple(self.objects))
            class_.shapes[name] = shape  # type: ignore[attr-defined]
            if class_.__name__ == "Subscription":
                setattr(class_, name, strawberry.subscription(_stream(name, shape, annotation)))
            elif self.choose.random() < 0.6:
                class_.__annotations__[name] = annotation
            else:
                setattr(class_, name, strawberry.field(self._resolver(name, shape, annotation)))

    def _random_type(self) -> tuple[Any, Shape]:
        annotation, shape = self._random_named_type()
        for _ in range(self.choose.choice((0, 0, 0, 1, 1, 2))):
            annotation, shape = list[annotation], Shape(shape.kind, item=shape)  # type: ignore[valid-type]
            if self.choose.random() < 0.4:
                annotation, shape = (
                    annotation | None,
                    Shape(shape.kind, nullable=True, item=shape.item),
                )
        return annotation, shape

    def _random_named_type(self) -> tuple[Any, Shape]:
        choose = self.choose
        kind = choose.choice(("leaf", "leaf", "object", "object", "interface", "union"))
        annotation: Any
        if kind == "interface" and self.interfaces:
            annotation = choose.choice(self.interfaces)
            classes = tuple(object_ for object_ in self.objects if issubclass(object_, annotation))
            shape = Shape(classes or (annotation,))
        elif kind == "union" and len(self.objects) > 1:
            members = sorted(choose.sample(self.objects, 2), key=lambda member: member.__name__)
            name = "Or".join(member.__name__ for member in members)
            annotation = Annotated[Union[tuple(members)], strawberry.union(name)]  # noqa: UP007
            shape = Shape(tuple(members))
        elif kind == "leaf":
            annotation = choose.choice(list(LEAVES))
            shape = Shape(annotation)
        else:
            annotation = choose.choice(self.objects)
            shape = Shape((annotation,))
        if choose.random() < 0.5:
            return annotation | None, Shape(shape.kind, nullable=True)
        return annotation, shape

    def _resolver(self, name: str, shape: Shape, annotation: Any) -> Callable[..., Any]:
        """Return a resolver of one of the kinds that Strawberry tells apart."""
        kind = self.choose.choice(
            ("plain", "info", "leaves", "list", "async", "async leaves", "late")
        )
        arguments: dict[str, Any] = {}
        if "leaves" in kind:
            arguments = {"number": int | None, "colour": Colour, "exact": Decimal | None}
        elif kind == "list":
            arguments = {"numbers": list[int]}
        elif kind == "info":
            arguments = {"info": Info}
        if kind.startswith(("async", "late")):
            resolve = _asynchronous(name, shape, late=kind == "late")
        else:
            resolve = _synchronous(name, shape)
        return _with_signature(resolve, name, arguments, annotation)


def _new_class(name: str, *bases: type) -> type:
    shapes: dict[str, Shape] = {}
    for base in bases:
        shapes |= base.shapes  # type: ignore[attr-defined]

    def read(self: Any, attribute: str) -> Any:
        shapes = vars(self).get("shapes") or shapes_of(type(self))
        if attribute not in shapes:
            raise AttributeError(attribute)
        return make_value(shapes[attribute], f"{self.key}{attribute}", self.sickness)

    return type(name, bases, {"shapes": shapes, "__getattr__": read, "__module__": __name__})


def _synchronous(name: str, shape: Shape) -> Callable[..., Any]:
    def resolve(self: Any, **arguments: Any) -> Any:
        return make_value(shape, _call_key(self, name, arguments), self.sickness)

    return resolve


def _asynchronous(name: str, shape: Shape, *, late: bool) -> Callable[..., Any]:
    async def resolve(self: Any, **arguments: Any) -> Any:
        if late:
            await asyncio.sleep(0)
        return make_value(shape, _call_key(self, name, arguments), self.sickness)

    return resolve


def _stream(name: str, shape: Shape, annotation: Any) -> Callable[..., Any]:
    async def resolve(self: Any, **arguments: Any) -> AsyncGenerator[Any, None]:
        for number in range(3):
            yield make_value(shape, f"{_call_key(self, name, arguments)}#{number}", self.sickness)

    return _with_signature(resolve, name, {"number": int | None}, AsyncGenerator[annotation, None])


def _call_key(self: Any, name: str, arguments: dict[str, Any]) -> str:
    given = {key: value for key, value in arguments.items() if key != "info"}
    return f"{self.key}{name}{sorted(given.items(), key=str)}"


def _with_signature(
    resolve: Callable[..., Any], name: str, arguments: dict[str, Any], annotation: Any
) -> Callable[..., Any]:
    """Return a function of *arguments* that calls *resolve*: Strawberry reads the signature."""
    defaults = {"number": "3", "exact": "None", "colour": "Colour.RED", "numbers": "(1, 2)"}
    parameters = ", ".join(
        f"{key}={defaults[key]}" if key in defaults else key for key in arguments
    )
    passed = ", ".join(f"{key}={key}" for key in arguments)
    is_async = asyncio.iscoroutinefunction(resolve)
    source = f"{'async ' * is_async}def {name}(self{', ' * bool(arguments)}{parameters}):\n"
    source += f"    return {'await ' * is_async}resolve(self{', ' * bool(arguments)}{passed})\n"
    scope: dict[str, Any] = {"resolve": resolve, "Colour": Colour}
    exec(source, scope)
    function: Callable[..., Any] = scope[name]
    function.__module__ = __name__
    function.__annotations__ = {**arguments, "return": annotation}
    return function
