"""The dryrun step: let the libraries of tune check its settings before nodes are created."""
