"""Backbones: where weights and tokenizers come from, and what differs between architectures."""
