"""``argotune presets`` lists presets: by default all, with the instance type that serves each and its price."""

import pytest
from workspace_sample import GOOD, write

from presets import known_models, model
from workflows import cli, estimate
from workflows.estimate import preset_memory
from workflows.load_plans import load_with_manifests


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def test_listing_is_the_default(capsys):
    assert cli.main(["presets"]) == 0
    by_default = capsys.readouterr().out
    assert cli.main(["presets", "ls"]) == 0
    assert capsys.readouterr().out == by_default
    [row] = [line.split() for line in by_default.splitlines() if line.startswith("phi-4 ")]
    assert row[6:8] == ["Standard_NV72ads_A10_v5", "6.52"]


def test_the_memory_is_that_of_the_estimate_of_a_plan(capsys, tmp_path):
    file = write(tmp_path, GOOD)
    [loaded] = load_with_manifests(str(file))
    estimated = estimate.estimate(loaded.plan)
    preset = model(loaded.plan.model.preset)
    assert estimated.tuning and preset_memory.tuning_gib(preset) == estimated.tuning.total
    served = preset_memory.serving_gib(preset)
    assert estimated.serving and served
    slots = loaded.plan.model_copy(update={"rollout": loaded.plan.rollout.model_copy(update={"adapters": []})})
    assert served == estimate.estimate(slots).serving.total
    assert cli.main(["presets", preset.name]) == 0
    [row] = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(f"{preset.name} ")]
    assert row[3:5] == [f"{estimated.tuning.total:.1f}", f"{served:.1f}"]


def test_each_preset_that_can_be_tuned_has_its_memory():
    for preset in known_models():
        tuned, served = preset_memory.tuning_gib(preset), preset_memory.serving_gib(preset)
        assert (tuned is not None and tuned > 1) == preset.tuning, preset.name
        assert served is None if preset.cannot_serve else served and served > preset.weights_gib, preset.name


@pytest.mark.parametrize(
    "arguments",
    [["-o", "name"], ["ls", "-o", "name"], ["-o", "name", "ls"], ["phi", "-o", "name"], ["-o", "name", "phi"]],
)
def test_the_format_is_accepted_with_and_without_ls(capsys, arguments):
    assert cli.main(["presets", *arguments]) == 0
    assert "phi-4" in capsys.readouterr().out.split()


@pytest.mark.parametrize(("word", "name"), [("PHI", "phi-4"), ("Phi3ForCausalLM", "phi-4"), ("apache", "qwen2.5")])
def test_a_word_selects_presets(capsys, word, name):
    assert cli.main(["presets", word, "-o", "name"]) == 0
    names = capsys.readouterr().out.split()
    assert cli.main(["presets", "ls", word, "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == names
    assert any(found.startswith(name) for found in names)
    assert "llama-3.1-8b-instruct" not in names


def test_no_match_is_an_error(capsys):
    for arguments in (["ls"], []):
        assert cli.main(["presets", *arguments, "nothing-like-this"]) == 2
        assert "no preset matches" in capsys.readouterr().err
