"""Expected refusals become the payload's `errors`; anything else stays an error."""

import functools
import typing
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from billing.errors import Refused, Unavailable
from resolvers.context import Info
from schema.types.user_error import UserError

P = TypeVar("P")
Mutate = Callable[..., Awaitable[P]]


def refusing(mutate: Mutate[P]) -> Mutate[P]:
    """Let *mutate* raise `Refused` and `Unavailable`: its payload then says so in `errors`.

    It sees what stands when it begins, not what an earlier mutation of the same document has loaded.
    """
    payload: Any = typing.get_type_hints(mutate)["return"]

    @functools.wraps(mutate)
    async def answer(info: Info, **arguments: Any) -> P:
        info.context.renew()
        try:
            return await mutate(info, **arguments)
        except (Refused, Unavailable) as error:
            refused: P = payload(errors=[UserError.of(error)])
            return refused

    return answer
