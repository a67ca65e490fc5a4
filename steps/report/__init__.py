"""The report step: one HTML page about a run, and a summary in the log."""
