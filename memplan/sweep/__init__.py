"""What a grid of settings needs. axes.py reads what is varied, grid.py estimates each point. Torch-free."""
