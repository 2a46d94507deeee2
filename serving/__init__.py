"""What stays up."""
