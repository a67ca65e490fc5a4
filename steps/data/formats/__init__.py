"""Formats of data files: selection, detection, and conversion to parquet."""
