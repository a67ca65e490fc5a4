"""``pipeline.search`` with a tiny model, run locally: the best trial is promoted, and finished trials are kept."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import trainable_model
from small_runs import SmallRun, make_home

pytestmark = pytest.mark.slow

STEPS = 8
SEARCH = """\
pipeline:
  evaluation: {samples: 0, maxLossRatio: 0.9}
  search: %s
"""


class Search(SmallRun):
    """A run of a search."""

    def __init__(self, folder: Path, home: Path, search: dict[str, Any]) -> None:
        super().__init__(folder, home, 40, eval_split=0.2)
        text = self.file.read_text()
        start, end = text.index("pipeline:"), text.index("---")
        text = text[:start] + SEARCH % json.dumps(search) + text[end:]
        epochs = text.index("num_train_epochs")
        self.file.write_text(f"{text[:epochs]}max_steps: {STEPS}{text[text.index(', learning_rate') :]}")

    def trial(self, name: str) -> Path:
        return self.work / "candidates" / name

    def outputs(self, node: str) -> dict[str, str]:
        outputs: dict[str, str] = self.nodes()[node]["outputs"]
        return outputs

    def page(self) -> str:
        return (self.work / "report" / "report.html").read_text()

    def log_of(self, node: str) -> str:
        return "".join(path.read_text() for path in sorted((self.folder / "nodes" / node).glob("*.log")))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("search-home"))


def test_the_best_trial_is_promoted_after_a_kill(tmp_path: Path, home: Path) -> None:
    """The runner is killed in the second trial; the first one is not trained again."""
    search = {"parameters": {"learningRate": [2e-2, 1e-9], "rank": [4]}}
    run = Search(tmp_path, home, search)
    process = run.begin()
    try:
        deadline = time.monotonic() + 1500
        while not trainable_model.curve(run.trial("trial-2")):
            assert process.poll() is None and time.monotonic() < deadline, run.log.read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=300)
        before = (run.trial("trial-1") / "report" / "train.jsonl").read_bytes()
        assert run.nodes()["search.trial.0"]["phase"] == "Succeeded"
        run.finish(run.start("--resume"))
    finally:
        process.kill()
    assert (run.trial("trial-1") / "report" / "train.jsonl").read_bytes() == before, "times included"
    assert run.log_of("search.trial.0.tune").count("training ") == 1
    losses = [float(run.outputs(f"search.trial.{n}")["adapter-loss"]) for n in (0, 1)]
    assert losses[0] < losses[1]
    assert run.outputs("search.promote")["candidate"] == "trial-1"
    assert run.outputs("search")["adapter-digest"] == run.outputs("search.trial.0.tune")["adapter-digest"]
    assert run.adapter() == run.outputs("search")["adapter-digest"], "packaged with the results of the winner"
    page = run.page()
    assert "<h2>Search</h2>" in page and "Training loss by trial" in page
    assert page.index("<td>trial-1</td>") < page.index("<td>trial-2</td>"), "the best trial first"
    assert "promoted" in page and "1e-09" in page


def test_halving_continues_from_the_checkpoints(tmp_path: Path, home: Path) -> None:
    search = {"method": "halving", "trials": 2, "parallel": 2, "parameters": {"learningRate": [2e-2, 1e-9]}}
    run = Search(tmp_path, home, search)
    run.finish(run.begin())
    items = json.loads(run.outputs("search.prune-1")["survivors"])
    assert [item["learning-rate"] for item in items] == ["0.02"]
    best = items[0]["candidate"]
    [other] = {"trial-1", "trial-2"} - {best}
    assert len(trainable_model.curve(run.trial(best))) == STEPS
    assert len(trainable_model.curve(run.trial(other))) == STEPS // 2
    assert f"resuming from step {STEPS // 2}" in run.log_of("search.rung-2.0.tune")
    assert run.outputs("search.promote")["candidate"] == best
    page = run.page()
    assert "pruned" in page and "50%" in page and "promoted" in page
