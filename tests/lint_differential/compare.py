"""Compare ``argotune lint`` with the real ``argo lint --offline`` on documents and mutants of them.

    .venv/bin/python tests/lint_differential/compare.py --mutants 5000 --corpus DIRECTORY --write

prints every difference with its explanation (``explanations.py``), and writes the figures into docs/LINT.md.
``argo`` is searched on the PATH and in ``$CLUSTER_DIR/bin``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

from argo_mutations import mutate  # noqa: E402
from argo_program import Verdict, argo_verdicts, find_argo  # noqa: E402
from explanations import explain  # noqa: E402

from workflows.lint import Finding, lint  # noqa: E402
from workflows.lint.rules import registry  # noqa: E402, F401 (so that its import is not measured)

MAX_BYTES = 60_000
"""Larger documents are not mutated: each mutant would say the same."""
PAGE = ROOT / "docs" / "LINT.md"
_MARKS = ("<!-- figures: written by tests/lint_differential/compare.py -->\n", "<!-- end of figures -->")


@dataclass(frozen=True)
class Difference:
    """A document on which the two programs differ."""

    name: str
    origin: str
    """Name of the file, and of the mutation."""
    findings: list[Finding]
    """Our errors; empty where only argo reports one."""
    argo: str
    """The message of argo; empty where only we report one."""
    explanation: str
    """Reason why the difference is right, from ``explanations.py``; empty when it is not explained."""

    def __str__(self) -> str:
        kind = "only argotune" if self.findings else "only argo"
        what = str(self.findings[0]).split("\n")[0] if self.findings else self.argo
        return f"{kind}: {self.origin}: {what}\n    {self.explanation or 'NOT EXPLAINED'}"


@dataclass(frozen=True)
class Comparison:
    """The verdicts of both programs on a set of documents."""

    documents: int
    refused: int
    """Number of documents that argo refuses."""
    differences: list[Difference]
    documents_per_second: float
    """Documents that we lint per CPU second."""

    @property
    def false_positives(self) -> list[Difference]:
        """Documents that only we refuse, without explanation."""
        return [each for each in self.differences if each.findings and not each.explanation]

    @property
    def beyond(self) -> list[Difference]:
        """Documents that only we refuse, with explanation."""
        return [each for each in self.differences if each.findings and each.explanation]

    @property
    def misses(self) -> list[Difference]:
        """Documents that only argo refuses."""
        return [each for each in self.differences if not each.findings]


def own_documents() -> list[Path]:
    """Return the goldens, cases and lint examples of this repository."""
    data = ROOT / "tests" / "data" / "lint"
    files = [*(ROOT / "argo").glob("*.yaml"), *data.rglob("*.yaml")]
    return sorted(path for path in files if path.name not in ("size.yaml", "crd-size.yaml"))


def corpus(directories: list[Path]) -> dict[str, str]:
    """Return the documents of this repository and of other directories by name."""
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in own_documents()}
    for directory in directories:
        for path in sorted(directory.rglob("*.yaml")):
            texts[f"{directory.name}/{path.relative_to(directory)}"] = path.read_text(errors="replace")
    return texts


def mutants(texts: Mapping[str, str], number: int, seed: int) -> dict[str, str]:
    """Return mutants by name; the same seed gives the same mutants."""
    rng = random.Random(seed)
    names = [name for name, text in texts.items() if len(text) <= MAX_BYTES]
    mutated = {}
    for index in range(number):
        name = rng.choice(names)
        mutation, text = mutate(texts[name], rng)
        mutated[f"{name} ({mutation} {index})"] = text
    return mutated


def compare(texts: Mapping[str, str], argo: str) -> Comparison:
    """Lint every text alone with both programs."""
    names = {f"d{index}.yaml": origin for index, origin in enumerate(texts)}
    started = time.process_time()
    ours = {name: lint([(name, texts[origin])], strict_refs=True).errors for name, origin in names.items()}
    seconds = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        verdicts = argo_verdicts(argo, {name: texts[origin] for name, origin in names.items()}, Path(folder))
    refused = sum(verdict.refused for verdict in verdicts.values())
    return Comparison(
        len(names), refused, list(_differences(names, texts, ours, verdicts)), len(names) / max(seconds, 1e-9)
    )


def _differences(
    names: Mapping[str, str],
    texts: Mapping[str, str],
    ours: Mapping[str, list[Finding]],
    verdicts: Mapping[str, Verdict],
) -> Iterator[Difference]:
    for name, origin in names.items():
        verdict = verdicts[name]
        if bool(ours[name]) != verdict.refused:
            message = verdict.message if verdict.refused else ""
            yield Difference(name, origin, ours[name], message, explain(ours[name], message, texts[origin]))


def figures(documents: Comparison, mutated: Comparison) -> str:
    """Return the table of docs/LINT.md."""
    rows = [
        "| | documents | argo refuses | missed | only argotune refuses, explained | unexplained | per CPU second |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, result in (("documents", documents), ("mutants", mutated)):
        accepted = result.documents - result.refused
        misses, wrong, more = len(result.misses), len(result.false_positives), len(result.beyond)
        rows.append(
            f"| {label} | {result.documents:,} | {result.refused:,} | {misses} ({_percent(misses, result.refused)}) | "
            f"{more} ({_percent(more, accepted)}) | {wrong} ({_percent(wrong, accepted)}) | "
            f"{result.documents_per_second:,.0f} |"
        )
    return "\n".join(rows) + "\n"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "0%"


def write_figures(text: str) -> None:
    """Replace the figures in docs/LINT.md."""
    before, rest = PAGE.read_text().split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    PAGE.write_text(f"{before}{_MARKS[0]}{text}{_MARKS[1]}{after}")


def main() -> int:
    """Compare, print, and return 1 if a difference is not explained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, action="append", default=[], help="Directory with more documents")
    parser.add_argument("--write", action="store_true", help="Write the figures into docs/LINT.md")
    args = parser.parse_args()
    argo = find_argo()
    if argo is None:
        sys.exit("argo is not installed")
    texts = corpus(args.corpus)
    results = [compare(texts, argo), compare(mutants(texts, args.mutants, args.seed), argo)]
    differences = [difference for result in results for difference in result.differences]
    for difference in differences:
        print(difference)
    counts = Counter(difference.explanation or "NOT EXPLAINED" for difference in differences)
    for explanation, count in counts.most_common():
        print(f"{count:5} {explanation}")
    print(figures(*results))
    if args.write:
        write_figures(figures(*results))
    return 1 if counts["NOT EXPLAINED"] else 0


if __name__ == "__main__":
    sys.exit(main())
