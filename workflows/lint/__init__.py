"""Lints Argo documents offline: Argo's schema, the rules of ``argo lint``, and what lint leaves out.

A rule is a function in ``rules/``; ``registry.py`` lists them all, and docs/LINT.md is made from that list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workflows.errors import Problem
from workflows.lint import schema
from workflows.lint.document import Document, Library
from workflows.lint.finding import Finding, Severity, Violation
from workflows.lint.reading import Raw, keys_as_text, read
from workflows.spec.findings import unknown

GROUP = "argoproj.io/"


@dataclass(frozen=True)
class Report:
    """What was found in a set of files, in the order of files and lines."""

    findings: list[Finding]
    documents: int
    """How many documents were linted."""
    skipped: list[str]
    """Kinds of the objects that are none of Argo Workflows'."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that are warnings."""
        return [finding for finding in self.findings if finding.severity == "warning"]


def lint(files: Iterable[tuple[str, str]], *, strict_refs: bool = False) -> Report:
    """Lint the documents of all files together, so that one may refer to a template of another.

    Args:
        files: name and text of each.
        strict_refs: a reference to a template that is in none of the files is an error, not a warning.
    """
    files = list(files)
    findings: list[Finding] = []
    library = Library()
    linted: list[tuple[Document, list[tuple[str, Violation]], str]] = []
    skipped = []
    for file, text in files:
        raws, problems = read(file, text)
        findings += [Finding("syntax", "error", problem) for problem in problems]
        for raw in raws:
            if kind_hit := _wrong_kind(raw):
                findings.append(_finding("kind", "error", kind_hit, raw))
            elif raw.kind not in schema.KINDS:
                skipped.append(raw.kind or "nothing that has a kind")
            else:
                document, hits = _document(raw, library)
                linted.append((document, hits, raw.path))
                library.documents.append(document)
    for document, hits, prefix in linted:
        findings += list(_check(document, hits, prefix, strict_refs))
    if not linted and not findings:
        findings += [_nothing(file, skipped) for file, _ in files]
    order = {file: index for index, (file, _) in enumerate(files)}
    findings.sort(key=lambda found: (order.get(found.problem.file, 0), found.problem.line))
    return Report(list(dict.fromkeys(findings)), len(linted), skipped)


def _document(raw: Raw, library: Library) -> tuple[Document, list[tuple[str, Violation]]]:
    size = len(json.dumps(raw.value, separators=(",", ":"), default=str).encode(errors="replace"))
    try:
        value, hits = schema.check(keys_as_text(raw.value), raw.kind)
    except RecursionError:
        value, hits = {}, [("syntax", Violation("", "nested too deeply", "make templates of the inline ones"))]
    return Document(raw.kind, value, raw.source, library, size), hits


def _check(
    document: Document, found: list[tuple[str, Violation]], prefix: str, strict_refs: bool
) -> Iterator[Finding]:
    """Findings of the schema, then those of the rules, but for what only follows from the former."""
    from workflows.lint.registry import RULES

    raw = Raw({}, document.source, prefix)
    spoilt = {hit.path for rule, hit in found if rule != "missing-field"}
    # What has the wrong type was taken out, so that what is around it now seems to lack it.
    mended = {hit.path[: max(map(hit.path.rfind, ".["))] for rule, hit in found if rule == "wrong-type"}
    for name, hit in found:
        yield _finding(name, "error", hit, raw)
    if not document.value:
        return
    for rule in RULES:
        severity: Severity = "error" if strict_refs and rule.id == "outside-reference" else rule.severity
        try:
            for hit in rule.check(document):
                if hit.path not in mended and not _follows(hit.path, spoilt):
                    yield _finding(rule.id, severity, hit, raw)
        except RecursionError:
            yield _finding(
                "syntax", "error", Violation("", "nested too deeply", "make templates of the inline ones"), raw
            )
            return


def _follows(path: str, spoilt: set[str]) -> bool:
    return any(path == place or path.startswith((f"{place}.", f"{place}[")) for place in spoilt)


def _finding(rule: str, severity: Severity, hit: Violation, raw: Raw) -> Finding:
    separator = "" if not raw.path or not hit.path or hit.path.startswith("[") else "."
    path = f"{raw.path}{separator}{hit.path}"
    problem = Problem(hit.message, path, raw.source.file, raw.source.line(path), hit.fix)
    return Finding(rule, severity, problem)


def _wrong_kind(raw: Raw) -> Violation | None:
    """A kind of ours in another group or version, or one that only looks like ours."""
    if not isinstance(raw.value, dict):
        return Violation("", "not an object of Kubernetes", "it begins with apiVersion and kind")
    version = str(raw.value.get("apiVersion", ""))
    if raw.kind in schema.KINDS and version != f"{GROUP}v1alpha1":
        return Violation("apiVersion", f"`{version}` is not the apiVersion of a {raw.kind}", f"write {GROUP}v1alpha1")
    if raw.kind not in schema.KINDS and version.startswith(GROUP):
        near = unknown(raw.kind, schema.KINDS)
        if near.startswith("did you mean") and raw.kind not in _OTHERS:
            return Violation("kind", f"Argo Workflows has no kind `{raw.kind}`", near)
    return None


_OTHERS = {
    "WorkflowEventBinding", "WorkflowTaskSet", "WorkflowTaskResult", "WorkflowArtifactGCTask",
    "ClusterAnalysisTemplate", "AnalysisTemplate",
}  # fmt: skip
"""Kinds of the same group that are other things."""


def _nothing(file: str, skipped: list[str]) -> Finding:
    what = f"nothing to lint: it holds {', '.join(sorted(set(skipped))) or 'no document'}"
    fix = "give a Workflow, WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow"
    if "Workspace" in skipped:
        fix = f"compile it first: argotune compile {file} | argotune lint -"
    return Finding("nothing-to-lint", "error", Problem(what, file=file, fix=fix))
