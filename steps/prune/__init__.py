"""The prune step: select the trials of a search that are trained further."""
