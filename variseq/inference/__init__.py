"""A served model without torch: an exported folder and histories in, answers out."""
