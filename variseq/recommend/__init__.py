"""A history in, ranked items out."""
