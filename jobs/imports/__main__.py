"""`python -m jobs.imports`."""

import sys

from jobs.imports.job import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
