"""How a model is best run on this machine: the search, what it measures with, and its report."""
