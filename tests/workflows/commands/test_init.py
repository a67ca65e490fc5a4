"""``argotune init`` writes a Workspace that ``argotune validate`` accepts, from flags or answers on a terminal."""

import json
import math
import os
import pty
import select
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from presets import model, models
from steps.evaluate import gate
from steps.evaluate.settings import GateRules
from steps.tune.settings import TrainingOptions
from workflows import cli, first_training, new_workspace
from workflows.commands import init
from workflows.load_plans import load_plans
from workflows.new_workspace import Answers
from workflows.spec import load, names

ROOT = Path(__file__).parents[3]
LOCAL = ("--model", "smollm2-135m-instruct", "--data", "rows", "--local")
CLUSTER = ("--model", "phi-4", "--data", "claim:chats", "--cluster")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with rows."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    write_rows(40)
    return tmp_path


def write_rows(count: int) -> None:
    rows = [{"prompt": f"State of disk {number}?", "completion": f"{number} is full."} for number in range(count)]
    Path("rows", "chats [1].jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize("flags", [LOCAL, CLUSTER], ids=["local", "cluster"])
def test_the_file_is_valid_and_the_next_commands_are(folder: Path, capsys: Any, flags: tuple[str, ...]) -> None:
    assert cli.main(["init", *flags]) == 0
    wrote, *commands = capsys.readouterr().out.splitlines()
    assert wrote == "wrote workspace.yaml"
    assert Path("workspace.yaml").read_text().startswith("# yaml-language-server: $schema=workspace.schema.json\n")
    assert cli.main(["validate", "workspace.yaml"]) == 0
    assert "warning: " not in capsys.readouterr().err
    for command in commands:
        words = shlex.split(command.partition(":")[2])
        assert words[0] == "argotune" and cli.full_parser().parse_args(words[1:])


def test_one_machine_gets_the_directory_of_the_data(folder: Path, capsys: Any) -> None:
    assert cli.main(["init", "disks.yaml", *LOCAL]) == 0
    assert "argotune run disks.yaml --volume rows=rows" in capsys.readouterr().out
    [manifest] = load("disks.yaml")
    tuning = manifest.workspace.tuning
    assert manifest.workspace.metadata.name == "disks" and manifest.workspace.resource is None
    assert tuning and tuning.input.volume_source == {"persistentVolumeClaim": {"claimName": "rows"}}


def test_one_file_is_selected_in_its_directory(folder: Path, capsys: Any) -> None:
    assert cli.main(["init", *LOCAL[:3], "rows/chats [1].jsonl", "--local"]) == 0
    assert "--volume rows=rows" in capsys.readouterr().out
    [manifest] = load("workspace.yaml")
    assert manifest.workspace.pipeline.data.pattern == "chats [[]1].jsonl"


# Number of rows (a tenth is held out) -> epochs: 100 steps of 4 rows, but at least the default, and not endlessly.
EPOCHS = {10: 20, 40: 12, 100: 5, 1000: 3}


@pytest.mark.parametrize(("rows", "epochs"), EPOCHS.items())
def test_few_rows_are_trained_on_often(folder: Path, capsys: Any, rows: int, epochs: int) -> None:
    write_rows(rows)
    assert cli.main(["init", *LOCAL]) == 0
    assert "warning: " not in capsys.readouterr().err
    [plan] = load_plans([Path("workspace.yaml")], local=True)
    assert plan.tuning and plan.tuning.epochs == epochs
    per_epoch = math.ceil(rows * 0.9 / plan.tuning.batch_size)
    text = Path("workspace.yaml").read_text()
    assert f"# {rows * 9 // 10} training rows: {per_epoch} steps per epoch, {per_epoch * epochs} in total" in text
    assert ("add rows" in text) == (per_epoch * epochs < first_training.MIN_STEPS)


def test_many_rows_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_training, "MAX_BYTES", 100)
    assert first_training.count_training_rows(Path("rows"), "") is None
    assert first_training.choose_epochs(None) == TrainingOptions().epochs


def test_rows_that_cannot_be_read_are_a_warning(folder: Path, capsys: Any) -> None:
    Path("rows", "chats [1].jsonl").write_text('{"text": 1}\n')
    assert cli.main(["init", *LOCAL]) == 0
    assert "warning: --data: " in (error := capsys.readouterr().err) and "    fix: " in error
    assert "# increase it for fewer than 133 rows" in Path("workspace.yaml").read_text()


@pytest.mark.parametrize("flags", [LOCAL, CLUSTER], ids=["local", "cluster"])
def test_the_gate_rejects_an_adapter_that_learned_nothing(folder: Path, flags: tuple[str, ...]) -> None:
    assert cli.main(["init", *flags]) == 0
    [plan] = load_plans([Path("workspace.yaml")], local=True)
    assert plan.evaluation

    def verdict(ratio: float, high: float) -> str:
        measured = gate.Measurements(loss_ratio=ratio, loss_ratio_high=high, regressions=0.0)
        return gate.reason(
            gate.judge(GateRules(**plan.evaluation.model_dump(include=set(GateRules.model_fields))), measured)
        )

    assert verdict(0.97, 0.99).startswith("maxLossRatio is 0.97, required < 0.9")
    assert verdict(0.8, 1.1) == "confident is 1.1, required < 0.9"
    assert not verdict(0.6, 0.8)


def test_each_workspace_has_a_claim_for_its_adapter(folder: Path) -> None:
    claims = set()
    for file in ("disks.yaml", "mails.yaml"):
        assert cli.main(["init", file, *LOCAL]) == 0
        [manifest] = load(file)
        tuning = manifest.workspace.tuning
        assert tuning and tuning.output.volume_source
        claims.add(tuning.output.volume_source["persistentVolumeClaim"]["claimName"])
    assert claims == {"disks-adapter", "mails-adapter"}


def test_a_cluster_gets_a_claim_nodes_and_the_smallest_machine(folder: Path) -> None:
    assert cli.main(["init", *CLUSTER]) == 0
    text = Path("workspace.yaml").read_text()
    workspace, config = yaml.safe_load_all(text)
    assert workspace["metadata"]["name"] == "phi-4-tuned", "the base model is served by its own name"
    assert workspace["tuning"]["input"] == {"volumeSource": {"persistentVolumeClaim": {"claimName": "chats"}}}
    assert workspace["resource"] == {"labelSelector": {"matchLabels": {"kubernetes.io/os": "linux"}}}
    assert "# instanceType: Standard_NV72ads_A10_v5 # 2 x NVIDIA A10, 24 GiB each, 6.52 USD/hour\n" in text
    assert config["metadata"]["name"] == workspace["tuning"]["config"]


def test_a_private_host_and_a_gated_model(folder: Path) -> None:
    data = "http://127.0.0.1:8765/rows.parquet"
    assert cli.main(["init", "--model", "llama-3.1-8b-instruct", "--data", data, "--local"]) == 0
    [manifest] = load("workspace.yaml")
    assert manifest.workspace.pipeline.data.allow_private_hosts
    assert manifest.workspace.preset and manifest.workspace.preset.preset_options.model_access_secret == "hf-token"


def test_standard_output(folder: Path, capsys: Any) -> None:
    assert cli.main(["init", "-o", "-", *CLUSTER]) == 0
    assert yaml.safe_load_all(capsys.readouterr().out)
    assert not Path("workspace.yaml").exists() and not Path("-").exists()


def test_a_file_is_overwritten_only_by_force(folder: Path, capsys: Any) -> None:
    Path("workspace.yaml").write_text("mine")
    assert cli.main(["init", *LOCAL]) == 2
    assert "workspace.yaml: already exists\n    fix: " in capsys.readouterr().err
    assert Path("workspace.yaml").read_text() == "mine"
    assert cli.main(["init", "--force", *LOCAL]) == 0
    assert cli.main(["validate", "workspace.yaml"]) == 0


REJECTED = {
    "unknown model": (["--model", "phi9", *LOCAL[2:]], "--model: unknown model"),
    "model of the hub": (["--model", "Qwen/Nope-9B", *LOCAL[2:]], "argotune presets add Qwen/Nope-9B"),
    "model that is served only": (["--model", "deepseek-v3-0324", *LOCAL[2:]], "--model: "),
    "no such file": ([*LOCAL[:3], "nothing", "--local"], "--data: nothing not found"),
    "files of this machine": ([*LOCAL[:3], "rows", "--cluster"], "--data: a cluster cannot read rows"),
    "a claim on one machine": ([*LOCAL[:3], "claim:x", "--local"], "--data: a claim is on a cluster"),
    "the name of a claim": ([*LOCAL[:3], "claim:X_Y", "--cluster"], "does not name a claim"),
    "an unknown scheme": ([*LOCAL[:3], "ftp://x.io/a", "--local"], "--data: "),
    "control characters": ([*LOCAL[:3], "a\nb", "--local"], "--data: contains control characters"),
    "two files": (["a.yaml", "-o", "b.yaml", *LOCAL], "cannot be combined"),
    "a file as directory": (["-o", "rows/chats [1].jsonl/a.yaml", *LOCAL], "cannot write"),
    "no terminal": ([], "--model, --data, --local or --cluster are required: standard input is no terminal"),
}


@pytest.mark.parametrize(("flags", "message"), REJECTED.values(), ids=REJECTED)
def test_what_is_rejected_has_a_fix_and_writes_nothing(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert cli.main(["init", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and "    fix: " in error and "unexpected" not in error
    assert not list(folder.glob("*.yaml"))


def test_all_wrong_flags_are_reported_together(folder: Path, capsys: Any) -> None:
    assert cli.main(["init", "--model", "phi9", "--data", "nothing", "--local"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


SCRIPT = """
import fcntl, os, sys, termios
from workflows import cli
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal
sys.exit(cli.main(["init", *sys.argv[1:]]))
"""


def terminal(folder: Path, answers: list[str], *flags: str) -> tuple[int, str]:
    """Run the command on a terminal; answer each question when it is asked; return exit code and output."""
    main, other = pty.openpty()
    command = [sys.executable, "-c", SCRIPT, *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=other, stdout=other, stderr=other) as process:
        os.close(other)
        waiting, shown = iter(answers), ""
        for text in _output(main):
            shown += text
            if shown.endswith(": ") and (answer := next(waiting, None)) is not None:
                os.write(main, answer.encode())
        os.close(main)
        process.kill()  # only if it waits for more answers
    return process.returncode, shown.replace("\r\n", "\n")


def _output(terminal: int) -> Iterator[str]:
    """Yield what is written until the other end is closed, or nothing comes for a minute."""
    while select.select([terminal], [], [], 60)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux: the other end was closed
            return
        if not part:
            return
        yield part.decode()


def test_three_questions_on_a_terminal(folder: Path) -> None:
    code, shown = terminal(folder, ["\n", "local\n", "rows\n"])
    assert code == 0, shown
    assert shown.index("Model: ") < shown.index("one machine") < shown.index("Data: ") < shown.index("wrote ")
    assert cli.main(["validate", "workspace.yaml"]) == 0
    [manifest] = load("workspace.yaml")
    assert manifest.workspace.preset and manifest.workspace.preset.name == init.DEFAULT_PRESET


def test_a_wrong_answer_is_asked_again_and_a_flag_is_not_asked(folder: Path) -> None:
    answers = ["phi9\n", "phi-4\n", "\n", "rows\n", "s3://bucket/rows/\n"]
    code, shown = terminal(folder, answers, "--cluster", "-o", "phi.yaml")
    assert code == 0, shown
    assert 'unknown model "phi9"' in shown and "a cluster cannot read rows" in shown and "one machine" not in shown
    assert shown.count("Data: ") == 3, "an empty answer is asked again"
    [manifest] = load("phi.yaml")
    assert manifest.workspace.tuning and manifest.workspace.tuning.input.urls == ["s3://bucket/rows/"]


def test_the_end_of_the_input_and_ctrl_c_cancel(folder: Path) -> None:
    for key in ("\x04", "\x03"):
        code, shown = terminal(folder, [key])
        assert code == 5 and "Traceback" not in shown, shown
    assert not list(folder.glob("*.yaml"))


@pytest.mark.parametrize("name", [preset.name for preset in models() if preset.tuning])
@pytest.mark.parametrize("place", ["local", "cluster"])
def test_every_model_that_can_be_tuned_gives_a_valid_workspace(folder: Path, name: str, place: str) -> None:
    answers = Answers(model(name), name, "hf://datasets/org/name", local=place == "local")
    init._check(new_workspace.text(answers, "workspace.yaml"), "workspace.yaml", local=answers.local)


@given(file=st.text(max_size=80), name=st.text(max_size=80))
def test_any_file_name_gives_a_valid_name(file: str, name: str) -> None:
    answers = Answers(model("phi-4"), "phi-4", "hf://datasets/org/name", local=True)
    found = new_workspace.workspace_name(file, name)
    assert names.is_label(found)
    workspace, config = yaml.safe_load_all(new_workspace.text(answers, file))
    assert workspace["metadata"]["name"] == new_workspace.workspace_name(file, "phi-4") != "phi-4"
    assert workspace["tuning"]["config"] == config["metadata"]["name"]
