"""Presets of a site profile (``presets: DIRECTORY``), and of the directory ``presets`` next to a Workspace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from presets import own
from workflows.errors import InvalidInput, Problem
from workflows.plan import site
from workflows.spec import preset_rules


def use(site_file: str | None, files: Iterable[str] = ()) -> None:
    """Find the presets of a site profile and those next to Workspace files; the latter win.

    Raises:
        InvalidInput: with all problems of the site profile's field, and of preset files; directories next to the
            Workspaces have different presets of one name.
    """
    adjacent = list(dict.fromkeys(Path(file).parent / preset_rules.FOLDER for file in files if file != "-"))
    configured = site.presets_folder(site_file)
    own.use_folders(dict.fromkeys([*adjacent, *([configured] if configured else [])]))
    if problems := [*_problems(), *_ambiguous(adjacent)]:
        raise InvalidInput(problems)


def _problems() -> Iterator[Problem]:
    for found in own.invalid():
        fix = "correct the file, or write it again with argotune presets add ORG/NAME -o FILE"
        yield Problem(found.message, path=found.field, file=found.file, fix=fix)


def _ambiguous(folders: Iterable[Path]) -> Iterator[Problem]:
    """Yield presets whose name another directory gives to another model: which one a Workspace means is not known."""
    first: dict[str, tuple[Path, own.Model]] = {}
    for file, model in own.read_folders(folders):
        earlier, known = first.setdefault(model.name.lower(), (file, model))
        if known != model and earlier.parent != file.parent:
            message = f"preset {model.name} differs from that in {earlier}"
            yield Problem(message, path="name", file=str(file), fix="rename one, or use separate commands")
