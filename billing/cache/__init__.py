"""The read cache: Stripe's last responses, served only while their generations are current.

``cache.Cache`` reads and invalidates; ``read_through`` loads missing values. ``entries`` encodes them
and names their generations. ``local_cache`` stores values in the process, ``redis_backend`` in Redis by the
scripts in ``scripts``; ``swept_cache`` drops what has expired in the process, ``erasures`` what was erased.
``invoice_line_index`` maps a line to its invoice. ``batcher`` and ``single_flight`` are independent of billing.
"""

from billing.cache.cache import Cache, open_cache
from billing.cache.read_through import CachePolicy

__all__ = ["Cache", "CachePolicy", "open_cache"]
