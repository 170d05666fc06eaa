"""Connects the GraphQL endpoint to billing: from a token to its Caller, from our errors to GraphQL's."""

from functools import partial

from graphql import GraphQLError
from starlette.applications import Starlette

from billing.errors import Refused, Unavailable
from billing.settings import Environment, Settings
from gateway.auth.caller import Authenticate, Caller
from gateway.auth.tokens import TokenVerifier, connection_deadline
from gateway.graphql.errors import request_error
from resolvers.context import Context, Role

# Cost points, of 20,000 that refill at 1,000 a second. Looking up an unknown id or cursor calls Stripe each
# time, and invented ones must not use up the Stripe budget.
MISSED_LOOKUP_COST = 500


def create_authenticator(
    app: Starlette, verifier: TokenVerifier, settings: Settings
) -> Authenticate:
    """Return the function that authenticates callers of *app*, whose Services are in ``state.services``.

    In production only staff and services may introspect the schema: a customer's token can be read
    out of the panel.
    """
    introspection_for_all = settings.environment is not Environment.PRODUCTION

    async def authenticate(authorization: object) -> Caller:
        viewer = await verifier.verify(authorization)
        return Caller(
            name=viewer.token_id or viewer.subject,
            new_context=partial(Context.for_viewer, viewer, app.state.services),
            expires_at=connection_deadline(viewer),
            may_introspect=introspection_for_all or viewer.role is not Role.CUSTOMER,
            may_send_ad_hoc=viewer.role is Role.SUPPORT,
            extra_cost=lambda context: (
                MISSED_LOOKUP_COST * (context.missed_lookups + context.loaders.stats.missed_lookups)
            ),
        )

    return authenticate


def to_graphql_error(error: BaseException) -> GraphQLError | None:
    """Return the GraphQL error for an expected error outside of a payload; None for a bug."""
    if isinstance(error, Refused):
        return request_error(error.code, error.message)
    if isinstance(error, Unavailable):
        return request_error(error.code, error.message, retryAfter=error.whole_seconds)
    return None
