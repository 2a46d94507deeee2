"""The bulk import of old history: sort on local disk, then place; `job` is where to begin reading."""
