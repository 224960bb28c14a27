"""The training loop and what steers it."""
