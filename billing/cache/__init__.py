"""The cache: what Stripe last answered, served only while nothing has changed since.

``Cache`` (in ``cache``) reads and forgets; ``tags`` names what can change and ``kept`` the entries, with
their lifetimes; ``memory`` and ``answers`` keep values in the process, ``server`` in Redis by the scripts in
``scripts``, as ``envelopes``. ``tick``, ``turns`` and ``lru`` know nothing of billing.
"""

from billing.cache.cache import Cache, CachePolicy, Shape, open_cache

__all__ = ["Cache", "CachePolicy", "Shape", "open_cache"]
