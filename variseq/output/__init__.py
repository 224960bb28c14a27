"""Consoles, progress of training, and text that is safe to print."""
