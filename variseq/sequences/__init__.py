"""Ragged histories and the batches made of them."""
