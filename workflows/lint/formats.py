"""Findings as text, JSON, GitHub annotations and SARIF."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workflows.version import VERSION

if TYPE_CHECKING:
    from workflows.lint import Finding, Report


def as_text(report: Report) -> str:
    """Return a line for each finding, and its fix."""
    return "\n".join(map(str, report.findings))


def as_json(report: Report) -> str:
    """Return one JSON object."""
    findings = [
        {"rule": finding.rule, "severity": finding.severity, **dataclasses.asdict(finding.problem)}
        for finding in report.findings
    ]
    value = {"valid": not report.errors, "documents": report.documents, "findings": findings}
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_github(report: Report) -> str:
    """Return workflow commands of GitHub Actions: annotations on the lines of a pull request."""
    return "\n".join(map(_annotation, report.findings))


def as_sarif(report: Report) -> str:
    """Return SARIF 2.1.0, which code scanning of GitHub and other tools read."""
    from workflows.lint.rules.registry import describe_rules

    used = {finding.rule for finding in report.findings}
    rules = [
        {"id": name, "shortDescription": {"text": text}, "defaultConfiguration": {"level": severity}}
        for name, severity, text in describe_rules()
        if name in used
    ]
    driver = {"name": "argotune lint", "version": VERSION, "rules": rules}
    run = {"tool": {"driver": driver}, "results": list(map(_result, report.findings))}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


FORMATS: dict[str, Callable[[Report], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}


def _annotation(finding: Finding) -> str:
    problem = finding.problem
    where = {"file": problem.file, "line": str(problem.line or 1), "title": f"argotune lint: {finding.rule}"}
    fields = ",".join(f"{name}={_escape(value, ':,')}" for name, value in where.items())
    return f"::{finding.severity} {fields}::{_escape(_message(finding))}"


def _escape(text: str, more: str = "") -> str:
    """Escape a text of a workflow command (actions/toolkit: ``escapeData``, ``escapeProperty``)."""
    return "".join(f"%{ord(sign):02X}" if sign in f"%\r\n{more}" else sign for sign in text)


def _message(finding: Finding) -> str:
    problem = finding.problem
    text = f"{problem.path}: {problem.message}" if problem.path else problem.message
    return f"{text}\nfix: {problem.fix}" if problem.fix else text


def _result(finding: Finding) -> dict[str, Any]:
    problem = finding.problem
    region = {"startLine": problem.line or 1}
    location = {"artifactLocation": {"uri": problem.file}, "region": region}
    return {
        "ruleId": finding.rule,
        "level": finding.severity,
        "message": {"text": _message(finding)},
        "locations": [{"physicalLocation": location}],
    }
