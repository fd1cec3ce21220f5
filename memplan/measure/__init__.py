"""What really happens: runs of the reference transformer, recorded."""
