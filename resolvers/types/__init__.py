"""The schema's object types with resolvers, one type and its parts in each file.

Types without resolvers are in ``schema.types``. ``stripe_links``, ``timestamps`` and ``skus`` convert values
that several types share.
"""
