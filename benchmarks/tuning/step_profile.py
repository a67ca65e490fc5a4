"""Profile the training loop of the tune step, and compute how much faster it could become.

    python benchmarks/tuning/step_profile.py                       # 3 minutes on 2 cores
    python benchmarks/tuning/step_profile.py --set long --rows 8

Prints the share of each kind of operation in the time of the loop, and the speed if all but matrix products and
attention took no time: the limit for every implementation that computes the same products.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import compare
import rows

KINDS = {
    "attention": ("attention",),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "mkldnn", "onednn"),
    "dequantization of NF4": ("bitsandbytes::",),
    "loss": ("log_softmax", "nll_loss", "cross_entropy", "logsumexp"),
    "optimizer": ("Optimizer", "_foreach", "_fused_adam"),
    "conversions and copies": ("aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat", "aten::index"),
}
"""Kinds of operations, by parts of their names; the first that matches counts."""
OTHERS, PYTHON = "activations, norms and others", "Python and waiting"
BOUND = ("matrix products", "attention")


def main() -> None:
    """Train with and without profiler, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=rows.SETS, default="conversations", help="set of rows")
    parser.add_argument("--rows", type=int, default=0, help="rows of the set (default: as many as the set has)")
    args = parser.parse_args()
    row_set = compare.choose_rows(args.set, args.rows)
    plain = compare.run(compare.Contender("argotune_step"), row_set)
    profiled = compare.run(compare.Contender("argotune_step", options={"profile": True}), row_set)
    for result in (plain, profiled):
        if "error" in result:
            sys.exit(result["error"])
    print_table(shares(profiled["operations"], profiled["seconds"]), plain)


def shares(operations: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return the share of each kind in the seconds of the loop, the largest first; operations are in seconds."""
    spent: Counter[str] = Counter()
    for operation, own in operations.items():
        spent[_kind(operation)] += own
    spent[PYTHON] = max(0.0, seconds - spent.total())
    return {kind: value / spent.total() for kind, value in spent.most_common()}


def _kind(operation: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), OTHERS)


def print_table(found: Mapping[str, float], plain: Mapping[str, Any]) -> None:
    """Print the shares, and the limit that follows for the run without profiler."""
    print("| operations | share of the time |\n|---|---|")
    for kind, share in found.items():
        print(f"| {kind} | {share:.0%} |")
    bound = sum(found.get(kind, 0.0) for kind in BOUND)
    print(f"\n{plain['tokens']} useful tokens in {plain['seconds']:.1f} s: {plain['speed']:.1f} tokens/s")
    print(f"limit with {' and '.join(BOUND)} only: {plain['speed'] / bound:.1f} tokens/s")


if __name__ == "__main__":
    main()
