"""Load tests: Locust users that speak the public protocols."""
