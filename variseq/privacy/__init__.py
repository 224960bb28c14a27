"""What protects people: noisy releases with a ledger of what they cost, and erasure with receipts."""
