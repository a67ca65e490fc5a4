"""``argotune presets`` lists presets: by default all, with the instance type that serves each and its price."""

import pytest

from workflows import cli


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
    assert row[4:6] == ["Standard_NV72ads_A10_v5", "6.52"]


@pytest.mark.parametrize("arguments", [["-o", "name"], ["ls", "-o", "name"], ["-o", "name", "ls"]])
def test_the_format_is_accepted_with_and_without_ls(capsys, arguments):
    assert cli.main(["presets", *arguments]) == 0
    assert "phi-4" in capsys.readouterr().out.split()


@pytest.mark.parametrize(("word", "name"), [("PHI", "phi-4"), ("Phi3ForCausalLM", "phi-4"), ("apache", "qwen2.5")])
def test_a_word_selects_presets(capsys, word, name):
    assert cli.main(["presets", "ls", word, "-o", "name"]) == 0
    names = capsys.readouterr().out.split()
    assert any(found.startswith(name) for found in names)
    assert "llama-3.1-8b-instruct" not in names


def test_no_match_is_an_error(capsys):
    assert cli.main(["presets", "ls", "nothing-like-this"]) == 2
    assert "no preset matches" in capsys.readouterr().err
