"""Lint Argo documents offline: Argo's schema, the rules of ``argo lint``, and problems that ``argo lint`` misses.

A rule is a function in ``rules/``; ``rules/registry.py`` lists them all, and docs/LINT.md is generated from that list.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from workflows.argo.document import Document, Library
from workflows.errors import Problem
from workflows.lint import schema, suppressions
from workflows.lint.finding import Finding
from workflows.lint.reading import Raw, read, string_keys
from workflows.lint.rules.rule import Severity, Violation
from workflows.spec.findings import unknown
from workflows.spec.source import Source

GROUP = "argoproj.io/"
_OTHER_KINDS = {
    "WorkflowEventBinding", "WorkflowTaskSet", "WorkflowTaskResult", "WorkflowArtifactGCTask",
    "ClusterAnalysisTemplate", "AnalysisTemplate",
}  # fmt: skip
"""Kinds of the same API group that are not linted."""
_TOO_DEEP = Violation("", "nested too deeply", "move inline templates to spec.templates")


@dataclass(frozen=True)
class Report:
    """Findings in a set of files, in the order of files and lines."""

    findings: list[Finding]
    documents: int
    """Number of linted documents."""
    skipped: list[str]
    """Kinds of the objects that do not belong to Argo Workflows."""
    suppressed: int = 0
    """Number of findings that comments suppress."""

    def only_errors(self) -> Report:
        """Return the report without warnings."""
        return replace(self, findings=self.errors)

    @property
    def errors(self) -> list[Finding]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that are warnings."""
        return [finding for finding in self.findings if finding.severity == "warning"]


@dataclass(frozen=True)
class _Checked:
    """A document after the schema check."""

    raw: Raw
    document: Document
    schema: schema.Checked


def lint(
    files: Iterable[tuple[str, str]],
    *,
    strict_refs: bool = False,
    library: Iterable[tuple[str, str]] = (),
    enable: Collection[str] = (),
) -> Report:
    """Lint the documents of all files together, so that one can refer to a template of another.

    Args:
        files: name and text of each file.
        strict_refs: report a reference to a template that is in none of the files as an error, not a warning.
        library: files with templates that the documents can refer to; they are not linted.
        enable: ids of optional rules to check.
    """
    with _rare_garbage_collection():
        return _lint(list(files), strict_refs, library, enable)


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Collect garbage rarely: documents are many small objects without cycles."""
    threshold = gc.get_threshold()
    if threshold[0]:  # 0: the caller has turned it off
        gc.set_threshold(max(threshold[0], 100_000), *threshold[1:])
    try:
        yield
    finally:
        gc.set_threshold(*threshold)


def _lint(
    files: list[tuple[str, str]], strict_refs: bool, library: Iterable[tuple[str, str]], enable: Collection[str]
) -> Report:
    findings: list[Finding] = []
    documents = Library()
    checked: list[_Checked] = []
    skipped = []
    for file, text in files:
        raws, problems = read(file, text)
        findings += [Finding("syntax", "error", problem) for problem in problems]
        for raw in raws:
            if violation := _wrong_kind(raw):
                findings.append(_finding("kind", "error", violation, raw))
            elif raw.kind not in schema.KINDS:
                skipped.append(raw.kind or "an object without kind")
            else:
                checked.append(_check_schema(raw, documents))
    for file, text in library:
        for raw in read(file, text)[0]:
            _check_schema(raw, documents)
    for each in checked:
        findings += list(_check_rules(each, strict_refs, enable))
    if not checked and not findings:
        findings += [_nothing(file, skipped) for file, _ in files]
    order = {file: index for index, (file, _) in enumerate(files)}
    findings.sort(key=lambda finding: (order.get(finding.problem.file, 0), finding.problem.line))
    findings = list(dict.fromkeys(findings))
    reported = _without_suppressed(findings, files)
    suppressed = len(findings) - sum(finding.rule != "suppression" for finding in reported)
    return Report(reported, len(checked), skipped, suppressed)


def lint_run(value: dict[str, Any]) -> list[Finding]:
    """Lint one parsed document as it will run: a template or a schedule is checked like a Workflow."""
    raw = Raw(string_keys(value), Source(""))
    if violation := _wrong_kind(raw):
        return [_finding("kind", "error", violation, raw)]
    return list(dict.fromkeys(_check_rules(_check_schema(raw, Library(), runs=True))))


def _without_suppressed(findings: list[Finding], files: list[tuple[str, str]]) -> list[Finding]:
    """Return the findings that no comment suppresses, and those about the comments."""
    commented = [(file, text) for file, text in files if "argotune:" in text]
    if not commented:
        return findings
    from workflows.lint.rules.registry import describe_rules

    known = {name for name, _, _ in describe_rules()}
    by_file = {file: suppressions.parse(file, text, known) for file, text in commented}
    kept = [each for each in findings if not (each.problem.file in by_file and by_file[each.problem.file].has(each))]
    for parsed in by_file.values():
        kept += [Finding("suppression", "warning", problem) for problem in parsed.problems]
    return kept


def _check_schema(raw: Raw, library: Library, *, runs: bool = False) -> _Checked:
    try:
        checked = schema.check(raw.value, raw.kind)
    except RecursionError:
        checked = schema.Checked({}, [("syntax", _TOO_DEEP)])
    document = Document(raw.kind, checked.value, library, runs)
    library.documents.append(document)
    return _Checked(raw, document, checked)


def _check_rules(checked: _Checked, strict_refs: bool = False, enable: Collection[str] = ()) -> Iterator[Finding]:
    """Yield the violations of the schema, then those of the rules, except for consequences of the former."""
    from workflows.lint.rules.registry import RULES

    violations, repaired = checked.schema.violations, checked.schema.repaired
    invalid = {violation.path for rule, violation in violations if rule not in ("missing-field", "null-item")}
    for name, violation in violations:
        yield _finding(name, "warning" if name == "null-item" else "error", violation, checked.raw)
    if not checked.document.value:
        return
    for rule in RULES:
        if rule.is_optional and rule.id not in enable:
            continue
        severity: Severity = "error" if strict_refs and rule.id == "outside-reference" else rule.severity
        try:
            for violation in rule.check(checked.document):
                if violation.path not in repaired and not _is_inside(violation.path, invalid):
                    yield _finding(rule.id, severity, violation, checked.raw)
        except RecursionError:
            yield _finding("syntax", "error", _TOO_DEEP, checked.raw)
            return


def _is_inside(path: str, parents: set[str]) -> bool:
    return any(path == parent or path.startswith((f"{parent}.", f"{parent}[")) for parent in parents)


def _finding(rule: str, severity: Severity, violation: Violation, raw: Raw) -> Finding:
    separator = "" if not raw.path or not violation.path or violation.path.startswith("[") else "."
    path = f"{raw.path}{separator}{violation.path}"
    problem = Problem(violation.message, path, raw.source.file, raw.source.line(path), violation.fix)
    return Finding(rule, severity, problem)


def _wrong_kind(raw: Raw) -> Violation | None:
    """Return the violation of a kind of Argo Workflows in another group or version, or of a misspelled kind."""
    if not isinstance(raw.value, dict):
        return Violation("", "not a Kubernetes object", "add apiVersion and kind")
    version = str(raw.value.get("apiVersion", ""))
    if raw.kind in schema.KINDS and version != f"{GROUP}v1alpha1":
        return Violation("apiVersion", f"`{version}` is not the apiVersion of a {raw.kind}", f"use {GROUP}v1alpha1")
    if raw.kind not in schema.KINDS and version.startswith(GROUP):
        near = unknown(raw.kind, schema.KINDS)
        if near.startswith("did you mean") and raw.kind not in _OTHER_KINDS:
            return Violation("kind", f"Argo Workflows has no kind `{raw.kind}`", near)
    return None


def _nothing(file: str, skipped: list[str]) -> Finding:
    message = f"nothing to lint: the file contains {', '.join(sorted(set(skipped))) or 'no document'}"
    fix = "pass a Workflow, WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow"
    if "Workspace" in skipped:
        fix = f"compile it first: argotune compile {file} | argotune lint -"
    return Finding("nothing-to-lint", "error", Problem(message, file=file, fix=fix))
