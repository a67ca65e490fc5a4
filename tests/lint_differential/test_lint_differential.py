"""``argotune lint`` and the real ``argo lint --offline``: every difference is explained in ``explanations.py``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from argo_program import argo_verdicts, find_argo
from compare import ROOT, compare, corpus, mutants

from workflows.lint import Report, lint

MAX_MISSED = 0.02
"""Share of the mutants refused by argo that may be missed."""


@pytest.fixture(scope="module")
def argo():
    return find_argo() or pytest.skip("argo is not installed")


@pytest.mark.cluster
@pytest.mark.parametrize(("number", "seed"), [(0, 0), (5000, 1)], ids=["documents", "mutants"])
def test_differences_are_explained(argo, number, seed):
    texts = corpus([])
    result = compare(mutants(texts, number, seed) if number else texts, argo)
    assert [str(each) for each in result.differences if not each.explanation] == []
    assert len(result.misses) <= MAX_MISSED * result.refused


class Recorder:
    """Plugin of pytest that keeps the documents that tests lint, and whether each has an error."""

    def __init__(self) -> None:
        self.has_errors: dict[str, bool] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            item.module.lint = self._lint

    def _lint(self, files: list[tuple[str, str]], **options: bool) -> Report:
        [(_, text)] = files
        report = lint(files, **options)
        self.has_errors[text] = bool(report.errors)
        return report


@pytest.mark.cluster
@pytest.mark.parametrize("file", ["test_lint_names.py", "test_lint_references.py"])
def test_argo_gives_the_verdicts_that_tests_of_the_linter_expect(argo, tmp_path, file):
    recorder = Recorder()
    tests = ["--quiet", "-p", "no:cacheprovider", "-p", "no:xdist", str(ROOT / "tests" / "workflows" / "lint" / file)]
    assert pytest.main(tests, plugins=[recorder]) == 0
    texts = {f"d{number}.yaml": text for number, text in enumerate(recorder.has_errors)}
    assert len(texts) >= 10
    verdicts = argo_verdicts(argo, texts, tmp_path)
    assert [text for name, text in texts.items() if verdicts[name].refused != recorder.has_errors[text]] == []


@pytest.mark.cluster
def test_verdicts_of_a_batch_are_those_of_single_files(argo, tmp_path):
    texts = {name.replace("/", "_"): text for name, text in corpus([]).items() if "/cases/" in name}
    together = argo_verdicts(argo, texts, tmp_path)
    for name, text in list(texts.items())[::9]:
        assert argo_verdicts(argo, {name: text}, tmp_path)[name].refused == together[name].refused, name


def test_mutants_are_deterministic_and_differ_from_their_documents():
    texts = corpus([])
    first = mutants(texts, 50, 3)
    assert first == mutants(texts, 50, 3)
    changed = sum(text != texts[name.split(" (")[0]] for name, text in first.items())
    assert changed >= 45
