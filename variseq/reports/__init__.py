"""A fitted model into a page that shows how it learned and what it is worth."""
