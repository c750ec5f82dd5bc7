"""Step program in, answers and numbers out: engines, sessions, proof, streams and benchmarks. No torch here."""
