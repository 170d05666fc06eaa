"""From a token to what the GraphQL edge needs to know about its bearer, and from our errors to words."""

from functools import partial

from graphql import GraphQLError
from starlette.applications import Starlette

from billing.errors import Refused, Unavailable
from billing.settings import Environment, Settings
from gateway.auth.caller import Authenticate, Caller
from gateway.auth.tokens import Tokens, lasts_until
from gateway.graphql.errors import request_error
from resolvers.context import Context, Role

# Of an allowance of 20,000 that regains 1,000 a second: what is not theirs takes a look at Stripe each time,
# and nobody may use Stripe's allowance up by inventing ids or cursors.
LOOKED_IN_VAIN = 500


def authenticator(app: Starlette, tokens: Tokens, settings: Settings) -> Authenticate:
    """Who may do what at the edge of *app*, which keeps its open Services in ``state.services``.

    The schema is shown to our own people and services; in production not to customers' tokens, which
    every customer can read out of the panel.
    """
    shown_to_all = settings.environment is not Environment.PRODUCTION

    async def authenticate(authorization: object) -> Caller:
        viewer = await tokens.viewer(authorization)
        return Caller(
            name=viewer.token_id or viewer.subject,
            context=partial(Context.of, viewer, app.state.services),
            until=lasts_until(viewer),
            introspects=shown_to_all or viewer.role is not Role.CUSTOMER,
            ad_hoc=viewer.role is Role.SUPPORT,
            surcharge=lambda context: (
                LOOKED_IN_VAIN * (context.in_vain + context.loaders.cost.in_vain)
            ),
        )

    return authenticate


def explain(fault: BaseException) -> GraphQLError | None:
    """The words for an expected refusal outside of a payload; None for a fault."""
    if isinstance(fault, Refused):
        return request_error(fault.code, fault.message)
    if isinstance(fault, Unavailable):
        return request_error(fault.code, fault.message, retryAfter=fault.whole_seconds)
    return None
