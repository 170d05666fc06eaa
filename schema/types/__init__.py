"""The schema's object types without resolvers, one type in each file.

Types with resolvers (customer, invoice) are in ``resolvers.types``.
"""
