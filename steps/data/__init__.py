"""Data sets: fetched over HTTP, checked, brought to one format, shuffled, weighted and split."""
