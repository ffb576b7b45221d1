"""`python -m loadtest`: run a load as the environment says. `tidegate load` starts it."""

import sys

from loadtest.main import main

sys.exit(main(sys.argv[1:]))
