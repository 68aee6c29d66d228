"""`python -m mecellem` is the same as `mecellem`."""

import sys

from mecellem.cli import main

if __name__ == "__main__":
    sys.exit(main())
