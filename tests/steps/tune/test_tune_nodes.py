"""Nodes train as one: with real processes, gloo, a work directory for each node, and TCP between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from trainable_model import curve
from tuning import losses, quick, start, wait_for_step, with_rows

PLAIN: dict[str, Any] = {"method": "lora", "dropout": 0.0, "model_config": json.dumps({"torch_dtype": "float32"})}
IN_PROCESS = PLAIN | {"model_config": {"torch_dtype": "float32"}}
STEPS = 54


def ranks(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    return sorted(psutil.Process(parent.pid).children(), key=lambda process: int(process.environ()["RANK"]))


def test_two_nodes_equal_one_process(tiny: Path, tmp_path: Path) -> None:
    one, two = with_rows(tmp_path / "one"), with_rows(tmp_path / "two")
    quick(one, tiny, **IN_PROCESS)
    out, err = start(two, tiny, **PLAIN, nodes=2, max_steps=4).communicate()
    assert losses(two) == pytest.approx(losses(one), abs=1e-4), err
    # More nodes do not change the batch.
    assert "on 70 rows, global batch size 4, 2 nodes, cpu (" in out
    assert (two / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_nodes_equal_processes_of_one_node(tiny: Path, tmp_path: Path) -> None:
    nodes, processes = with_rows(tmp_path / "nodes"), with_rows(tmp_path / "processes")
    flags = {**PLAIN, "epochs": 1}
    _, err = start(nodes, tiny, **flags, nodes=2).communicate()
    assert len(losses(nodes)) == STEPS // 3, err
    _, err = start(processes, tiny, **flags, processes=2, batch_size=2).communicate()
    assert losses(nodes) == pytest.approx(losses(processes), abs=1e-3), err


@pytest.mark.slow
def test_killed_rank_resumes_from_the_checkpoint(tiny: Path, tmp_path: Path) -> None:
    """Two nodes are stopped, then the second is killed; another start gets its checkpoint over the network."""
    one, two = with_rows(tmp_path / "one"), with_rows(tmp_path / "two")
    quick(one, tiny, **IN_PROCESS, max_steps=-1)

    stopped = start(two, tiny, **PLAIN, nodes=2)
    wait_for_step(stopped, two, 4)
    stopped.send_signal(signal.SIGTERM)
    _, err = stopped.communicate()
    assert stopped.returncode == 143, err
    saved = len(curve(two))
    # Rank 0 has collected the random state of the other node.
    assert (two / "checkpoints" / f"checkpoint-{saved}" / "rng_state_1.pth").is_file()

    failed = start(two, tiny, **PLAIN, nodes=2)
    wait_for_step(failed, two, saved + 2)
    first, second = ranks(failed)
    os.kill(second.pid, signal.SIGKILL)
    out, err = failed.communicate()
    assert failed.returncode == 1 and err.startswith("error: rank 1 of 2 was killed by SIGKILL"), err
    assert f"resuming from step {saved}\n" in out
    assert not first.is_running()

    out, err = start(two, tiny, **PLAIN, nodes=2).communicate()
    assert "resuming from step" in out, err
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)


@pytest.mark.slow
def test_weights_are_sharded_within_each_node(tiny: Path, tmp_path: Path) -> None:
    """Two nodes with two processes each (HSDP)."""
    one, four = with_rows(tmp_path / "one"), with_rows(tmp_path / "four")
    quick(one, tiny, **IN_PROCESS)
    flags = {**PLAIN, "batch_size": 2, "max_steps": 4}
    out, err = start(four, tiny, **flags, nodes=2, processes=2, sharding="full").communicate()
    assert losses(four) == pytest.approx(losses(one), abs=1e-3), err
    assert "global batch size 4, 2 nodes, cpu (4 processes, " in out and "sharded base weights" in out


@pytest.mark.slow
def test_packed_rows_are_sent_to_other_nodes(tiny: Path, tmp_path: Path) -> None:
    """They are in main memory, not in the file of tokens."""
    one, two = with_rows(tmp_path / "one"), with_rows(tmp_path / "two")
    packing = {"packing": True}
    quick(one, tiny, **IN_PROCESS, training_arguments=packing)
    _, err = start(two, tiny, **PLAIN, nodes=2, max_steps=4, training_arguments=json.dumps(packing)).communicate()
    assert losses(two) == pytest.approx(losses(one), abs=1e-3), err
