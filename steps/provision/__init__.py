"""The provision step: GPU nodes for a run, on AKS, by Karpenter, or existing ones."""
