"""What each command does, in words and tables on a terminal."""
