"""The words of the schema, one noun a file: what holds only what it was given.

Types whose fields have to be answered (a customer, an invoice) stand in ``resolvers``.
"""
