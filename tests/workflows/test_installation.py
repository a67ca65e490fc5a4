"""Packages of other distributions that shadow argotune's are reported with their distribution and a fix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflows import installation

CHECK = "from workflows import installation; installation.check(); print('ok')"


def install_package(folder: Path, package: str, distribution: str = "") -> None:
    """Create a foreign package in a folder, installed by a distribution or as a stray folder."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("raise RuntimeError('the check must not run foreign code')\n")
    if distribution:
        info = folder / f"{distribution.replace('-', '_')}-2.20.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.20.0\n")
        (info / "RECORD").write_text(f"{package}/__init__.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")


def run(code: str, *folders: Path, args: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run code in a new Python whose ``sys.path`` starts with the folders."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)


def test_the_installed_packages_pass() -> None:
    installation.check()


@pytest.mark.parametrize("package", ["steps", "presets"])
def test_a_shadowing_distribution_is_named_with_a_fix(tmp_path: Path, package: str) -> None:
    install_package(tmp_path, package, "some-presets")
    done = run(CHECK, tmp_path)
    assert done.returncode != 0
    assert f"the package '{package}' comes from {tmp_path}" in done.stderr
    assert "fix: pip uninstall some-presets" in done.stderr
    assert "foreign code" not in done.stderr


def test_all_foreign_packages_are_reported(tmp_path: Path) -> None:
    install_package(tmp_path / "one", "steps", "other-steps")
    install_package(tmp_path / "two", "presets", "presets")
    stderr = run(CHECK, tmp_path / "one", tmp_path / "two").stderr
    assert "pip uninstall other-steps" in stderr
    assert "pip uninstall presets" in stderr


def test_a_stray_folder_has_no_distribution(tmp_path: Path) -> None:
    install_package(tmp_path, "steps")
    stderr = run(CHECK, tmp_path).stderr
    assert "pip uninstall" not in stderr
    assert f"remove {tmp_path} from PYTHONPATH" in stderr


def test_a_folder_without_init_does_not_shadow(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    assert run(CHECK, tmp_path).stdout == "ok\n"


def test_a_shadowed_workflows_is_detected(tmp_path: Path) -> None:
    """The module is loaded by path while its name resolves elsewhere, as after a later installation."""
    install_package(tmp_path, "workflows", "llama-index-workflows")
    code = (
        "import importlib.util, sys, types\n"
        f"sys.path.append({str(installation.ROOT)!r})\n"
        "errors = types.ModuleType('workflows.errors'); errors.ArgotuneError = RuntimeError\n"
        "sys.modules['workflows.errors'] = errors\n"
        f"spec = importlib.util.spec_from_file_location('inst', {installation.__file__!r})\n"
        "inst = importlib.util.module_from_spec(spec); spec.loader.exec_module(inst); inst.check()"
    )
    assert "fix: pip uninstall llama-index-workflows" in run(code, tmp_path).stderr


def test_the_command_prints_only_the_error(tmp_path: Path) -> None:
    install_package(tmp_path, "steps", "other-steps")
    code = "import sys; from workflows.cli import main; sys.exit(main(sys.argv[1:]))"
    done = run(code, tmp_path, args=("presets", "ls"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: the package 'steps' comes from")
    assert "Traceback" not in done.stderr
