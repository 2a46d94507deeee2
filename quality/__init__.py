"""What judges data before anything of it may be dropped."""
