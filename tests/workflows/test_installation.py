"""Other distributions install packages of our names too; then nothing may run, and the message names the culprit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflows import installation

CHECK = "from workflows import installation; installation.check(); print('ours')"


def plant(folder: Path, package: str, distribution: str = "") -> None:
    """Put a package of one of our names into a folder, as a distribution would or as a stray folder."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("raise RuntimeError('the check must not run foreign code')\n")
    if distribution:
        info = folder / f"{distribution.replace('-', '_')}-2.20.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.20.0\n")
        (info / "RECORD").write_text(f"{package}/__init__.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")


def run(code: str, *first: Path, words: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Start Python anew with folders that come before all others."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, first))}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)


def test_here_all_three_are_ours() -> None:
    installation.check()


@pytest.mark.parametrize("package", ["steps", "presets"])
def test_the_distribution_that_shadows_us_is_named_with_the_way_out(tmp_path: Path, package: str) -> None:
    plant(tmp_path, package, "some-presets")
    done = run(CHECK, tmp_path)
    assert done.returncode != 0
    assert f"the package '{package}' comes from {tmp_path}" in done.stderr
    assert "fix: pip uninstall some-presets" in done.stderr
    assert "foreign code" not in done.stderr


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    plant(tmp_path / "one", "steps", "other-steps")
    plant(tmp_path / "two", "presets", "presets")
    told = run(CHECK, tmp_path / "one", tmp_path / "two").stderr
    assert "pip uninstall other-steps" in told
    assert "pip uninstall presets" in told


def test_a_stray_folder_is_nobodys_distribution(tmp_path: Path) -> None:
    plant(tmp_path, "steps")
    told = run(CHECK, tmp_path).stderr
    assert "pip uninstall" not in told
    assert f"take {tmp_path} off PYTHONPATH" in told


def test_a_folder_without_init_does_not_shadow(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    assert run(CHECK, tmp_path).stdout == "ours\n"


def test_a_shadowed_workflows_is_seen_from_ours(tmp_path: Path) -> None:
    """Where ours is found by its path and the name leads elsewhere, as after a later install over it."""
    plant(tmp_path, "workflows", "llama-index-workflows")
    code = (
        "import importlib.util, sys, types\n"
        f"sys.path.append({str(installation.OURS)!r})\n"
        "errors = types.ModuleType('workflows.errors'); errors.ArgotuneError = RuntimeError\n"
        "sys.modules['workflows.errors'] = errors\n"
        f"spec = importlib.util.spec_from_file_location('inst', {installation.__file__!r})\n"
        "inst = importlib.util.module_from_spec(spec); spec.loader.exec_module(inst); inst.check()"
    )
    assert "fix: pip uninstall llama-index-workflows" in run(code, tmp_path).stderr


def test_the_command_line_says_so_and_no_more(tmp_path: Path) -> None:
    plant(tmp_path, "steps", "other-steps")
    code = "import sys; from workflows.cli import main; sys.exit(main(sys.argv[1:]))"
    done = run(code, tmp_path, words=("presets", "ls"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: the package 'steps' comes from")
    assert "Traceback" not in done.stderr
