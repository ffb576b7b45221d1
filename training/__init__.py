"""Trains classifiers with Lightning and writes the card that serving needs into the checkpoint."""

import os

# Importing either library would otherwise ask its maker's servers for news, or send them usage figures.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# It would print where to see every run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Left to itself MLflow asks a server that is away for four minutes, and one that hangs for a quarter of an hour.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
