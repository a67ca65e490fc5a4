"""The preflight step: check data, model, registry, storage and quota before anything that costs is created."""
