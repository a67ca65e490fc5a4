"""Plan to Argo Workflow, through Hera; and text that Go's YAML reader understands as it was meant."""
