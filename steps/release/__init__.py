"""The release step: delete the nodes that the run created."""
