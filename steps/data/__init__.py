"""Training data: row formats, datasets on disk, and their tokens."""
