"""Rules: pure, typed, without I/O."""
