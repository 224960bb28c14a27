"""Counts over several logs that stay where they are: a coordinator, and parties that join it."""
