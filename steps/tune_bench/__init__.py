"""The tune_bench step: measure the tuning speed of this machine."""
