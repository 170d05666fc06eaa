"""The GraphQL schema: ``types`` are its object types, ``build`` assembles it, ``schema.graphql`` is the printed copy.

``query``, ``mutation`` and ``subscription`` are its roots. Records come from ``resolvers``; nothing there imports this package.
The docstrings of types and resolvers are the descriptions in the schema.
``python -m schema`` writes ``schema.graphql``; ``python -m schema --check`` verifies that it is current.
"""
