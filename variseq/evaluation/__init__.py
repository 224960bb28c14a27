"""Evaluation of any recommender: metrics, baselines, intervals and tests; imports no model."""
