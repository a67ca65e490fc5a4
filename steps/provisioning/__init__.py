"""GPU nodes: of AKS, of Karpenter, or there already; made for one run and given back."""
