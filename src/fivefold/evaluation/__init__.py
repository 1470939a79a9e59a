"""How good decisions and scores are, and how sure that is."""
