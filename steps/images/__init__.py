"""OCI images: the layout on disk, registries, who we are to them, and where an image comes from."""
