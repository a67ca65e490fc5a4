"""The report of a run: what it left behind, as one HTML page."""
