"""Which configurations make a suite: one file for each. Torch-free."""
