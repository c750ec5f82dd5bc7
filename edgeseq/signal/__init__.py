"""From what a sensor or a microphone gives to what a model reads: standard library, numpy and msgspec only."""
