"""The evaluate step: compare the adapter with its base and the deployed adapter, and apply the gate."""
