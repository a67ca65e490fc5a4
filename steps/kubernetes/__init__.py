"""The Kubernetes API: connection, client of single objects, errors, and the policy of pods."""
