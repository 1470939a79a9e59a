"""Causal language models under a classification head."""
