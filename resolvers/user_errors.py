"""Conversion of the core's errors into the `errors` of a mutation's payload."""

import functools
import typing
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from billing.errors import Refused, Unavailable
from resolvers.context import Info
from schema.types.user_error import UserError

P = TypeVar("P")
Mutate = Callable[..., Awaitable[P]]


def with_user_errors(mutate: Mutate[P]) -> Mutate[P]:
    """Return *mutate* with `Refused` and `Unavailable` converted into the payload's `errors`.

    The dataloaders are reset first, so the mutation does not see what an earlier one in the document loaded.
    """
    payload: Any = typing.get_type_hints(mutate)["return"]

    @functools.wraps(mutate)
    async def wrapper(info: Info, **arguments: Any) -> P:
        info.context.reset_loaders()
        try:
            return await mutate(info, **arguments)
        except (Refused, Unavailable) as error:
            failed: P = payload(errors=[UserError.from_error(error)])
            return failed

    return wrapper
