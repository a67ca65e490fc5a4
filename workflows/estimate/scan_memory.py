"""Memory of blocks that keep a state, as the PyTorch code of transformers 5.19 computes them.

argotune's images have no kernels for these blocks (mamba-ssm, flash-linear-attention), with which they need less. The
sums are the tensors that autograd saves, in the order of ``mamba2_chunk_scan`` (modeling_granitemoehybrid.py) and of
``torch_chunk_gated_delta_rule`` (modeling_qwen3_5.py): the code computes in float32, and matrix products keep copies
in 16 bits.
"""

from __future__ import annotations

import math

from presets.facts import Scan


def saved_bytes(scan: Scan) -> float:
    """Return the bytes per token that one block saves, without its norms, MLP and adapters."""
    return (_mamba if scan.kind == "mamba2" else _delta_rule)(scan)


def gradient_bytes(scan: Scan) -> int:
    """Return the bytes per token of the widest gradients: of the scores and of their decays, in float32."""
    return 2 * 4 * scan.heads * scan.chunk


def padded(length: int, scan: Scan) -> int:
    """Return the length of a row, padded to full chunks."""
    return math.ceil(length / scan.chunk) * scan.chunk


def _mamba(scan: Scan) -> float:
    values, states = scan.values, scan.heads * scan.state
    total: float = 2 * (values + scan.convolved + scan.heads)  # output of the first layer, which the convolution saves
    total += 2 * scan.convolved  # input of the activation
    total += 4 * values  # values before the time step
    total += 8 * scan.heads * scan.chunk  # decays in float32; scores, and both multiplied, in 16 bits
    total += 2 * 2 * states + 2 * values  # operands of scores (C, B) and of the values that they weigh
    total += 4 * states + 2 * states + 2 * values  # decayed B, and operands of the states
    total += 2 * states + 2 * values  # operands of the output of earlier chunks
    total += 2 * 2 * values * scan.state / scan.chunk  # states of all chunks
    return total + 4 * 4 * values  # gated norm: input, gate, its activation, and the product


def _delta_rule(scan: Scan) -> float:
    values, keys = scan.values, scan.heads * scan.state
    total: float = 2 * 2 * scan.convolved  # input of the convolution and of its activation
    total += 2 * 4 * keys + 4 * keys + 4 * values  # before and after the norms of queries and keys; values
    total += (4 + 2 + 2 + 4) * scan.heads * scan.chunk  # decays, both matrices of scores, system of equations
    total += 2 * 2 * 2 * keys  # operands of both matrices
    total += 4 * keys + 4 * keys + 4 * values  # decayed keys, and both solutions
    total += 4 * keys  # queries
    # For each chunk: operands with the states (keys, queries, keys), the new values twice, scores, states three times.
    total += 3 * 2 * keys + 2 * 2 * values + 2 * scan.heads * scan.chunk
    total += (2 + 2 + 4) * values * scan.state / scan.chunk
    return total + (4 + 4 + 4 + 2) * values  # gated norm: input, gate, its activation, and the result
