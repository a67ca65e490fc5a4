"""The base model, from the hub or a wheel, and the adapter as it lies on disk."""
