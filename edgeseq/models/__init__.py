"""Streaming models: the contract, the families, and their weights on disk."""
