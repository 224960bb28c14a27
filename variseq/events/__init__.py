"""Raw events in: reading, checking, cleaning, encoding, simulating."""
