"""A message of running out of memory, explained: as text and as JSON."""
