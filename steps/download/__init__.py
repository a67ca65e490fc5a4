"""The download step: fetch, validate, normalize and split the training data."""
