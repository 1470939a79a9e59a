"""How a network reads texts and is trained."""
