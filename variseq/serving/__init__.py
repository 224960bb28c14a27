"""A model behind HTTP, with its own durable event histories: events in, the very next answer reflects them."""
