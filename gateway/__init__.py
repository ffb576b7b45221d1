"""The door: REST and gRPC in front of Triton, with identity, limits, a cache, honest errors and metrics."""
