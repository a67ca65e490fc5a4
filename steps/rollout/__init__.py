"""The rollout step: serve the base model and its adapters, locally or on a cluster, and verify the answers."""
