"""From texts, pictures, sounds, vectors and numbers of items to one vector an item."""
