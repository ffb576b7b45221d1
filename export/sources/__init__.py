"""Where a model comes from: each source ends in a file on this disk, and says what it was and where."""
