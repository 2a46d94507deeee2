"""Data at rest: where files lie, how they are written, committed and read back."""
