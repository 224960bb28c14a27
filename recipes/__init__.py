"""Published results, each made again by one command; see README.md here."""
