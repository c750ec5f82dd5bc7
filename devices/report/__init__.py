"""The report: what the folders are, what was measured, and what follows from it, for whoever decides about a board."""
