"""The cache: what Stripe last answered, served only while nothing has changed since.

``Cache`` (in ``cache``) reads and forgets; ``loading`` is what it does when it has nothing valid, ``policy``
how long things last. ``tags`` names what can change and ``kept`` what is kept of it; ``memory`` and
``answers`` keep values in the process, ``server`` in Redis by the scripts in ``scripts``, as ``envelopes``;
``looks`` is what they say to each other. ``line_places`` remembers which invoice a line is on. ``tick``, ``turns``
and ``lru`` know nothing of billing.
"""

from billing.cache.cache import Cache, open_cache
from billing.cache.policy import CachePolicy
from billing.cache.read_through import Shape

__all__ = ["Cache", "CachePolicy", "Shape", "open_cache"]
