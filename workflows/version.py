"""The version of argotune, of its images and their labels; pyproject.toml reads it from here."""

VERSION = "0.1.0"
