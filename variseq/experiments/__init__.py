"""Live experiments: which policy each user gets, and what follows from their exposures."""
