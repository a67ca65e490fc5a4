"""Facts about models and GPU SKUs, as data."""
