"""A ConfigMap can be in another file than its Workspace."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

from workflows.cli import main
from workflows.errors import InvalidInput
from workflows.load_plans import load_with_manifests

KAITO = Path(__file__).parents[2] / "data" / "kaito"
WORKSPACE, CONFIG = (KAITO / "kaito_workspace_tool_calling.yaml").read_text().split("---\n")[::-1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / "a-workspace.yaml").write_text(WORKSPACE)
    (folder / "b-config.yml").write_text(CONFIG)
    (folder / "notes.txt").write_text("not YAML: [")
    return folder


def test_a_directory_is_read_as_one(folder):
    [loaded] = load_with_manifests(str(folder))
    assert loaded.plan.rollout.server_arguments["max-model-len"] == 4096
    assert str(folder / "b-config.yml") in loaded.plan.origin("rollout.serverArguments")


def test_files_are_read_in_any_order(folder):
    names = [str(folder / "b-config.yml"), str(folder / "a-workspace.yaml")]
    assert load_with_manifests(names)[0].plan == load_with_manifests(str(folder))[0].plan


def test_alone_it_lacks_the_config(folder):
    with pytest.raises(InvalidInput) as caught:
        load_with_manifests(str(folder / "a-workspace.yaml"))
    [problem] = caught.value.problems
    assert "not found in this file" in problem.message
    assert "pass its file or directory too" in problem.fix


def test_a_problem_of_the_config_names_its_file_and_line(folder):
    (folder / "b-config.yml").write_text(CONFIG.replace("max-model-len: 4096", "max-model-len: many"))
    with pytest.raises(InvalidInput) as caught:
        load_with_manifests(str(folder))
    [problem] = caught.value.problems
    line = next(i for i, text in enumerate(CONFIG.splitlines(), 1) if "max-model-len" in text)
    assert (problem.file, problem.line) == (str(folder / "b-config.yml"), line)


def test_a_directory_without_a_workspace_is_rejected(folder):
    (folder / "a-workspace.yaml").unlink()
    (folder / "c.yaml").write_text("kind: Service\napiVersion: v1\nmetadata: {name: a}\n")
    with pytest.raises(InvalidInput, match="no Workspace in these files"):
        load_with_manifests(str(folder))


def test_an_empty_directory_is_rejected(tmp_path):
    with pytest.raises(InvalidInput, match="contains no YAML file"):
        load_with_manifests(str(tmp_path))


def test_a_config_in_two_other_files_is_ambiguous(folder):
    (folder / "c-config.yaml").write_text(CONFIG.replace("4096", "8192"))
    with pytest.raises(InvalidInput) as caught:
        load_with_manifests(str(folder))
    [problem] = caught.value.problems
    assert problem.message.endswith(f"is also in {folder / 'b-config.yml'}") and problem.file.endswith("c-config.yaml")


def test_either_file_can_be_standard_input(folder, monkeypatch):
    expected = load_with_manifests(str(folder))[0].plan.rollout
    for text, other in ((CONFIG, "a-workspace.yaml"), (WORKSPACE, "b-config.yml")):
        for names in (["-", str(folder / other)], [str(folder / other), "-"]):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
            [loaded] = load_with_manifests(names)
            assert loaded.plan.rollout == expected


def test_a_problem_of_standard_input_names_it(folder, monkeypatch):
    broken = CONFIG.replace("max-model-len: 4096", "max-model-len: many")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(broken.encode())))
    with pytest.raises(InvalidInput) as caught:
        load_with_manifests([str(folder / "a-workspace.yaml"), "-"])
    assert [problem.file for problem in caught.value.problems] == ["<stdin>"]


@pytest.mark.parametrize("command", ["plan", "compile", "validate", "submit"])
@pytest.mark.parametrize("whole", [True, False])
def test_commands_accept_several_files_and_a_directory(folder, capsys, command, whole):
    files = [str(folder)] if whole else [str(folder / "b-config.yml"), str(folder / "a-workspace.yaml")]
    flags = ["--dry-run=client"] if command == "submit" else ["-o", "json"]
    assert main([command, *files, *flags]) == 0
    shown = capsys.readouterr().out
    assert command == "validate" or "max-model-len" in shown
    assert command not in ("plan", "compile", "validate") or json.loads(shown)


@pytest.mark.parametrize("command", ["plan", "compile", "validate", "submit"])
@pytest.mark.parametrize("form", ["-f A -f B", "-f A,B", "-f FOLDER", "A -f B", "-f A B", "--filename=A -f -"])
def test_files_are_named_as_for_kubectl(folder, capsys, monkeypatch, command, form):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WORKSPACE.encode())))
    names = {"A": folder / "b-config.yml", "B": folder / "a-workspace.yaml", "FOLDER": folder}
    words = [re.sub(r"\b(A|B|FOLDER)\b", lambda match: str(names[match[0]]), word) for word in form.split()]
    flags = ["--dry-run=client"] if command == "submit" else ["-o", "json"]
    assert main([command, *words, *flags]) == 0
    shown = capsys.readouterr().out
    assert command == "validate" or "max-model-len" in shown


def test_a_comma_can_be_part_of_a_file_name(folder, capsys):
    file = (folder / "a-workspace.yaml").rename(folder / "a,b.yaml")
    assert main(["compile", "-f", str(file), "-f", str(folder / "b-config.yml")]) == 0
    assert "max-model-len" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["plan", "compile", "validate", "submit", "run", "preview", "preflight"])
def test_a_file_is_required(command, capsys):
    with pytest.raises(SystemExit):
        main([command])
    assert "FILE" in capsys.readouterr().err


def test_problems_of_several_workspaces_name_their_files(folder, capsys):
    (folder / "c.yaml").write_text(WORKSPACE.replace("name: workspace-", "name: other-", 1))
    files = [f"-f={file}" for file in sorted(folder.glob("*.y*ml"))]
    assert main(["compile", *files, "--as", "cron"]) == 2
    shown = capsys.readouterr().err
    assert all(f"error: {folder / name}: " in shown for name in ("a-workspace.yaml", "c.yaml"))


def test_run_and_preview_name_all_files(folder, capsys):
    files = [str(folder / "b-config.yml"), str(folder / "a-workspace.yaml")]
    assert main(["preview", *files]) == 2
    assert f"error: {' '.join(files)}: no Workspace has `tuning`" in capsys.readouterr().err
    assert main(["run", *files, "--resume", "--runs-dir", str(folder / "runs")]) == 2
    assert f"argotune run {' '.join(files)}" in capsys.readouterr().err
