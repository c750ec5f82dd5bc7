"""A model folder in, a smaller one out: distillation and quantization."""
