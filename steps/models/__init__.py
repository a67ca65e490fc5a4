"""Base models, from the hub or a wheel, and adapters on disk."""
