"""What all networks share, and the smallest of them."""
