"""Tables to rows: load, infer, check, split, compose, demo."""
