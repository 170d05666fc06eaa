"""The mutations: one file each, named as in the schema; ``resolvers.mutation`` lists them.

``resolvers.validation`` parses their arguments, ``resolvers.audited`` logs the actions of Support, and
``resolvers.user_errors`` converts expected errors into the `errors` of the payload.
"""
