"""How a network reads texts and is trained."""

import os

KEPT_SHAPES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "64"}
"""Shapes of products whose code oneDNN and torch keep, read at the first product. They would keep 1,024 each: gigabytes
where every pass has another length, as with texts. A pass has fewer, and a new one costs a millisecond."""

for _name, _kept in KEPT_SHAPES.items():
    os.environ.setdefault(_name, _kept)
