"""The check step: compare data and settings with those of the live adapter."""
