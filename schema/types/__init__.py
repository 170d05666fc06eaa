"""The schema's object types and enums, one type and its parts in each file.

They shape records: resolvers that need more than their object's record call ``resolvers``.
"""
