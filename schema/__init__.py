"""What clients see: ``types`` are the words, ``root`` puts the whole schema together, ``schema.graphql`` is it in print.

Every description in GraphiQL is a docstring here or in ``resolvers``, written for its reader
there. ``python -m schema`` writes ``schema.graphql`` anew; ``python -m schema --check`` says whether
it still matches.
"""
