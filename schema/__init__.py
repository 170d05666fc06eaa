"""What clients see: ``types`` are the words, ``root`` puts the whole schema together, ``schema.graphql`` is it in print.

Object types whose fields have to be resolved (a customer, an invoice) are in ``resolvers.types``, the mutations
in ``resolvers.mutations``. Every description in GraphiQL is a docstring in one of these, written for its reader there.
``python -m schema`` writes ``schema.graphql`` anew; ``python -m schema --check`` says whether
it still matches.
"""
