"""The benchmark: every server beside the limit of the machine, in one run. `python -m loadtest.bench --help`."""
