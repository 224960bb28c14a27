"""Text for people into characters on a terminal, shown as it is."""
