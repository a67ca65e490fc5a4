"""How the adapter is trained: rows as tokens and batches, settings, checkpoints, several processes, tracking."""
