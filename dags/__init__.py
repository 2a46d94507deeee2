"""What watches: one file per workflow, wiring and docs only."""
