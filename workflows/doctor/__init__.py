"""Read-only checks of a cluster and of argotune's installation on it (``argotune doctor``)."""
