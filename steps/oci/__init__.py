"""OCI images: references, layouts on disk, credentials, and push and pull with a registry."""
