"""What protects people: erasure with receipts."""
