"""``argotune compile`` takes many files in one call: all are compiled, or all problems are reported."""

import gc

import pytest
import yaml
from workspace_sample import GOOD

from workflows import cli


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)
    paths = [tmp_path / f"{name}.yaml" for name in ("one", "two", "three")]
    for path in paths:
        path.write_text(GOOD.replace("name: tuned", f"name: {path.stem}"))
    return paths


def argotune(*words) -> int:
    return cli.main([str(word) for word in words])


def test_documents_are_in_the_order_of_the_files(files, capsys):
    assert argotune("compile", *files, files[0], "--as", "template") == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [document["metadata"]["name"] for document in documents] == ["one", "two", "three"]
    assert gc.isenabled()


def test_problems_of_all_files_are_reported_and_nothing_is_printed(files, capsys):
    files[0].write_text(GOOD.replace("method: qlora", "method: slora"))
    files[2].write_text("kind: [")
    assert argotune("compile", *files) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert f"{files[0]}:13: tuning.method" in output.err
    assert f"{files[2]}:1: " in output.err
    assert gc.isenabled()


def test_one_name_in_two_files_is_rejected(files, capsys):
    files[1].write_text(files[0].read_text())
    assert argotune("compile", *files) == 2
    assert f'{files[1]}:4: metadata.name: duplicate Workspace "one" (also {files[0]}:4)' in capsys.readouterr().err


def test_one_name_in_two_namespaces_is_accepted(files, capsys):
    files[1].write_text(files[0].read_text().replace("  name: one\n", "  name: one\n  namespace: other\n"))
    assert argotune("compile", *files) == 0


def test_json_output_accepts_one_workspace(files, capsys):
    assert argotune("compile", "-o", "json", *files) == 2
    assert "-o json cannot be combined with several Workspaces (3)" in capsys.readouterr().err
