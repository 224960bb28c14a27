"""Lists that were given to people, what followed from them, and with which probabilities they were drawn."""
