"""What ends: jobs. `python -m jobs.<name>` is how everyone runs them."""
