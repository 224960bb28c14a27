"""Judges any recommender; imports no model."""
