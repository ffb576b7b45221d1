"""What can go wrong with the benchmark."""


class BenchFailed(Exception):
    """A measurement that would not mean what it says."""
