"""The fetch step: put the base model into the models claim, on a CPU node, while the GPU nodes come up."""
