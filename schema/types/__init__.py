"""The words of the schema, one noun a file: types that hold only what they were given.

Types whose fields have to be resolved (a customer, an invoice) are in ``resolvers.types``.
"""
