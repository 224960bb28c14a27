"""The answering core: encoded histories to ranked items, in numpy. Nothing here imports torch."""
