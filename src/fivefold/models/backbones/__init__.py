"""Backbones: where weights and tokenizers come from, and what differs between architectures."""

import logging

# It says at every product what it casts, and at its import which kernels it can't fetch.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
