"""Reads a KAITO-style Workspace, plans it, writes the Argo Workflow and runs that on one machine."""
