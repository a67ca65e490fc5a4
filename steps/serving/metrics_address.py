"""Port, path and variable of the metrics, without the web framework that the rollout's image does not have."""

PATH = "/metrics"
PORT = 5001
"""Port in a pod."""
ADDRESS_VARIABLE = "ARGOTUNE_METRICS"
"""Environment variable of a server with the address (``HOST:PORT``); empty: it has no metrics."""
