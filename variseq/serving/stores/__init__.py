"""Events of users in, their histories out: durable, ordered, shared by all processes, erasable."""
