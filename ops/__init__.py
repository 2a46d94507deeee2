"""What a person drives: the command line, the local stack, sample data."""
