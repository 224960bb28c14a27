"""Exposures: lists that answers gave to people, their record, and what people did with them."""
