"""Modem profiles: one file a family; a sibling model is a short delta over its parent."""
