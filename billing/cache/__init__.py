"""The read cache: Stripe's last responses, served only while their generations are current.

``cache.Cache`` reads and invalidates. ``read_through`` loads what is missing, under the times of
``policy``. ``entries`` names the entries and generations, ``kept`` the fields of Stripe's objects that are
stored. ``local_cache`` and ``answers`` store values in the process; ``redis_backend`` stores them in Redis
by the scripts in ``scripts``, wrapped by ``envelopes`` and looked up by ``lookup``. ``invoice_line_index``
maps a line to its invoice. ``batcher``, ``single_flight`` and ``lru`` are independent of billing.
"""

from billing.cache.cache import Cache, open_cache
from billing.cache.policy import CachePolicy
from billing.cache.read_through import Decode

__all__ = ["Cache", "CachePolicy", "Decode", "open_cache"]
