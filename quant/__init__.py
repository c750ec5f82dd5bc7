"""A model folder in, a smaller one out. Nothing is here yet."""
