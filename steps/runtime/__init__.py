"""The runtime of all steps: entrypoint, errors, files, retries, progress and redaction."""
