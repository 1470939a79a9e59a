"""The encoder family: a backbone under pooling, or prompts, and a head."""
