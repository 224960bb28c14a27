"""The variational attention network."""
