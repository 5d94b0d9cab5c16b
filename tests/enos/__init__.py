"""The EnOS layer: names and keys, limits, refusals, and a whole authentication."""
