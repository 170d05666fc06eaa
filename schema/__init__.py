"""The GraphQL schema: ``types`` are its object types, ``build`` assembles it, ``schema.graphql`` is the printed copy.

Object types with resolvers (customer, invoice) are in ``resolvers.types``, mutations in ``resolvers.mutations``.
The docstrings of types and resolvers are the descriptions in the schema.
``python -m schema`` writes ``schema.graphql``; ``python -m schema --check`` verifies that it is current.
"""
