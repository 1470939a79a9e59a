"""From scores to decisions, by a rule fitted on out-of-fold rows."""
