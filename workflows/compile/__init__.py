"""Compile a plan to an Argo Workflow through Hera, and write it as YAML that Go parses as intended."""
