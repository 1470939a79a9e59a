"""Models that write their labels."""
