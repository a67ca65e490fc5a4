"""``argotune lint``: directories, patterns, comments, formats, templates of a cluster."""

import json
from pathlib import Path

import pytest
import yaml

from workflows.errors import InvalidInput
from workflows.lint import lint
from workflows.lint.cluster_templates import fetch_templates
from workflows.lint.files import read_files
from workflows.lint.rules.registry import RULES

ROOT = Path(__file__).parents[3]
BAD = ROOT / "tests" / "data" / "lint" / "bad"
LEAF = {"name": "run", "container": {"image": "ghcr.io/acme/tool:latest", "command": ["tool"]}}


def document(kind: str, name: str, *templates: dict, **spec) -> str:
    value = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"templates": list(templates), **spec},
    }
    return yaml.safe_dump(value, sort_keys=False)


def caller(name: str, template: str) -> dict:
    return {"name": "main", "steps": [[{"name": "a", "templateRef": {"name": name, "template": template}}]]}


def test_directory_and_pattern_select_the_same_files(tmp_path):
    for name in ("a.yaml", "sub/b.yml", "sub/c.json", "sub/note.txt", ".git/d.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    below = [str(tmp_path / name) for name in ("a.yaml", "sub/b.yml", "sub/c.json")]
    assert [name for name, _ in read_files([str(tmp_path)])] == below
    assert [name for name, _ in read_files([str(tmp_path / "a.yaml"), f"{tmp_path}/**/*.y*ml"])] == below[:2]


def test_empty_directories_and_patterns_are_named(tmp_path):
    with pytest.raises(InvalidInput) as error:
        read_files([str(tmp_path), f"{tmp_path}/*.yaml"])
    assert [problem.file for problem in error.value.problems] == [str(tmp_path), f"{tmp_path}/*.yaml"]


def test_documents_of_a_directory_resolve_each_other(tmp_path, argotune):
    (tmp_path / "flow.yaml").write_text(document("Workflow", "flow", caller("shared", "rnu"), entrypoint="main"))
    (tmp_path / "shared.yaml").write_text(document("WorkflowTemplate", "shared", LEAF))
    ended = argotune("lint", "--strict-refs", "--severity", "error", tmp_path)
    assert ended.returncode == 2
    assert "[template-reference] `shared` has no template `rnu`" in ended.stdout
    assert ended.stderr == "2 documents, 1 error, 0 warnings\n"


@pytest.mark.parametrize(
    ("comment", "rules"),
    [
        ("# argotune: ignore[image-tag]", []),
        ("# argotune: ignore", []),
        ("# argotune: ignore[deadline, image-tag]", []),
        ("# argotune: ignore[deadline]", ["image-tag"]),
        ("# argotune: ignore[image-tags]", ["image-tag", "suppression"]),
        ("# argotune: ignored[image-tag]", ["image-tag"]),
    ],
)
def test_comment_suppresses_its_line_or_the_next(comment, rules):
    lines = document("Workflow", "flow", LEAF, entrypoint="run").splitlines(keepends=True)
    line = next(index for index, text in enumerate(lines) if "image:" in text)
    after = [*lines[:line], lines[line].rstrip() + f"  {comment}\n", *lines[line + 1 :]]
    before = [*lines[:line], f"      {comment}\n", "      # why\n", *lines[line:]]
    for text in ("".join(after), "".join(before)):
        assert sorted({finding.rule for finding in lint([("a.yaml", text)]).findings}) == rules


def test_comment_of_the_file_suppresses_everywhere_and_is_counted():
    text = document("Workflow", "flow", LEAF, entrypoint="run")
    report = lint([("a.yaml", f"# argotune: ignore-file[image-tag]\n{text}"), ("b.yaml", text)])
    assert [finding.problem.file for finding in report.findings] == ["b.yaml"]
    assert report.suppressed == 1


def test_syntax_errors_cannot_be_suppressed():
    assert lint([("a.yaml", "a: [1  # argotune: ignore\n")]).errors


def test_github_annotations_escape_newlines_and_colons(argotune):
    ended = argotune("lint", "--format", "github", "-", text=(BAD / "quantity.yaml").read_text())
    assert ended.stdout == (
        "::error file=stdin,line=9,title=argotune lint%3A quantity::"
        "spec.templates[0].container.resources.limits.memory: `2GB` is not a quantity%0Afix: use 2G\n"
    )


def test_sarif_has_rules_levels_and_lines(argotune):
    ended = argotune("lint", "--format", "sarif", BAD / "quantity.yaml", BAD / "image-tag.yaml")
    [run] = json.loads(ended.stdout)["runs"]
    results = {(result["ruleId"], result["level"]) for result in run["results"]}
    assert results == {("quantity", "error"), ("image-tag", "warning")}
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == {"quantity", "image-tag"}
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert places[0] == {"artifactLocation": {"uri": str(BAD / "quantity.yaml")}, "region": {"startLine": 9}}


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--fail-on", "warning"], 2), (["--severity", "error"], 0)])
def test_severity_of_the_exit_code(argotune, flags, code):
    ended = argotune("lint", *flags, BAD / "image-tag.yaml")
    assert ended.returncode == code
    assert ("[image-tag]" in ended.stdout) == ("--severity" not in flags)


def test_optional_rules_are_enabled_by_name(argotune):
    assert argotune("lint", BAD / "unread-output.yaml").stdout == ""
    assert "[unread-output]" in argotune("lint", "--enable", "unread-output", BAD / "unread-output.yaml").stdout
    ended = argotune("lint", "--enable", "unread-outputs", BAD / "unread-output.yaml")
    assert ended.returncode == 2
    assert "did you mean unread-output?" in ended.stderr


def test_templates_of_the_cluster_are_followed():
    stored = {
        ("WorkflowTemplate", "ml", "shared"): document("WorkflowTemplate", "shared", caller("inner", "run")),
        ("WorkflowTemplate", "ml", "inner"): document("WorkflowTemplate", "inner", LEAF),
    }
    requested = []

    def find(kind, namespace, name):
        requested.append(name)
        text = stored.get((kind, namespace or "ml", name))
        return yaml.safe_load(text) if text else None

    files = [("flow.yaml", document("Workflow", "flow", caller("shared", "mian"), entrypoint="main"))]
    library = fetch_templates(files, find)
    assert requested == ["shared", "inner"]
    [finding] = lint(files, strict_refs=True, library=library).findings
    assert str(finding).startswith("flow.yaml:")
    assert "`shared` has no template `mian`" in str(finding)


def test_kube_reads_templates_of_the_cluster(cluster, argotune, tmp_path):
    template = yaml.safe_load(document("WorkflowTemplate", "shared", LEAF))
    template["metadata"]["namespace"] = "argotune"
    cluster.put(template)
    flow = tmp_path / "flow.yaml"
    flow.write_text(document("Workflow", "flow", caller("shared", "rnu"), entrypoint="main"))
    ended = argotune("lint", "--kube", "--strict-refs", flow, KUBECONFIG=str(tmp_path / "kubeconfig"))
    assert "[template-reference] `shared` has no template `rnu`" in ended.stdout, ended.stderr


def test_pre_commit_hook_lints_files(tmp_path):
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [(hook["id"], hook["entry"]) for hook in hooks] == [("argotune-lint", "argotune lint")]


def test_rule_ids_are_unique():
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
