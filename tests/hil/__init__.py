"""The pytest plugin, the suite and its reports."""
