"""Off-policy evaluation: what a policy is worth, by the lists that another one has given."""
