"""The package step: build an OCI image of the adapter and push it."""
