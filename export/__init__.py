"""A trained model in, a step program out; a step program in, files out; and the proof that all agree."""
