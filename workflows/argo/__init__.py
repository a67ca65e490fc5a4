"""Argo Workflows: documents, DAGs, expressions, tags, durations, schedules, retries and exit codes."""
