"""``argotune compile`` takes many files in one call: all are compiled, or all problems are told."""

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


def test_each_file_becomes_a_document_in_their_order(files, capsys):
    assert argotune("compile", *files, files[0], "--as", "template") == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [document["metadata"]["name"] for document in documents] == ["one", "two", "three"]
    assert gc.isenabled()


def test_problems_of_all_files_are_told_and_nothing_is_printed(files, capsys):
    files[0].write_text(GOOD.replace("method: qlora", "method: slora"))
    files[2].write_text("kind: [")
    assert argotune("compile", *files) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{files[0]}:13: tuning.method" in told.err
    assert f"{files[2]}:1: " in told.err
    assert gc.isenabled()


def test_one_name_in_two_files_is_refused(files, capsys):
    files[1].write_text(files[0].read_text())
    assert argotune("compile", *files) == 2
    assert f"{files[1]}:4: metadata.name: Workspace one stands in {files[0]} too, on line 4" in capsys.readouterr().err


def test_one_name_in_two_namespaces_is_not(files, capsys):
    files[1].write_text(files[0].read_text().replace("  name: one\n", "  name: one\n  namespace: other\n"))
    assert argotune("compile", *files) == 0


def test_json_has_room_for_one(files, capsys):
    assert argotune("compile", "-o", "json", *files) == 2
    assert "3 Workspaces, and JSON has room for one" in capsys.readouterr().err
