"""``argotune init``: writes a first Workspace, from three answers."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.commands.argument_types import DEFAULT_PRESET
from workflows.errors import Cancelled, InvalidInput, Problem, collect_problems

if TYPE_CHECKING:
    from presets import Model
    from workflows.new_workspace import Answers

DEFAULT_FILE = "workspace.yaml"
EXAMPLES = """Examples:
  # Answer three questions
  argotune init
  # Tune on files of this machine, and serve there
  argotune init disks.yaml --model smollm2-135m-instruct --data rows/ --local
  # Tune a larger model on a cluster
  argotune init --model phi-4 --data hf://datasets/philschmid/dolly-15k-oai-style --cluster -o phi.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune init``."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"File to write (default: {DEFAULT_FILE})")
    parser.add_argument("-o", "--output", metavar="FILE", help="File to write, or - for standard output")
    parser.add_argument("--model", metavar="NAME", help="Preset (see 'argotune presets'), or ORG/NAME of the hub")
    data = "URL, file or directory of the rows, or claim:NAME of a volume claim"
    parser.add_argument("--data", metavar="PLACE", help=data)
    places = parser.add_mutually_exclusive_group()
    places.add_argument("--local", dest="place", action="store_const", const="local", help="Run on one machine")
    places.add_argument("--cluster", dest="place", action="store_const", const="cluster", help="Run on a cluster")
    parser.add_argument("--force", action="store_true", help="Overwrite an existing file")


def run(args: argparse.Namespace) -> int:
    """Ask for what the flags lack, write the file, and print the next commands.

    Raises:
        InvalidInput: a flag is invalid or missing, the file exists, or no valid Workspace results.
        Cancelled: standard input ended before the last answer.
    """
    from workflows import new_workspace

    file = _file(args)
    answers = _answers(args)
    content = new_workspace.text(answers, file)
    _check(content, file, local=answers.local)
    if file == "-":
        print(content, end="")
        return 0
    _write(Path(file), content)
    print(f"wrote {file}")
    for label, command in new_workspace.next_commands(answers, file).items():
        print(f"    {label + ':':6} {command}")
    return 0


def _file(args: argparse.Namespace) -> str:
    if args.file and args.output and args.file != args.output:
        raise InvalidInput(
            Problem(f"FILE {args.file} cannot be combined with -o {args.output}", fix="pass one of them")
        )
    file = str(args.output or args.file or DEFAULT_FILE)
    if file != "-" and Path(file).exists() and not args.force:
        raise InvalidInput(
            Problem("already exists", file=file, fix="choose another file, or overwrite it with --force")
        )
    return file


def _answers(args: argparse.Namespace) -> Answers:
    """Return the answers: those of the flags, all checked before the first question, then those of the user."""
    from workflows.new_workspace import Answers
    from workflows.plan import own_presets

    own_presets.use(None, [args.output or args.file or DEFAULT_FILE])
    problems: list[Problem] = []
    preset = collect_problems(problems, _model, args.model) if args.model else None
    if args.data:
        collect_problems(problems, _data, args.data, args.place)
    missing = [flag for flag in ("model", "data") if not getattr(args, flag)]
    is_asked = sys.stdin.isatty()
    if not is_asked and (missing or not args.place):
        flags = [*(f"--{flag}" for flag in missing), *([] if args.place else ["--local or --cluster"])]
        message = f"{', '.join(flags)} {'is' if len(flags) == 1 else 'are'} required: standard input is no terminal"
        problems.append(Problem(message, fix="pass the flags, or run the command in a terminal"))
    if problems:
        raise InvalidInput(problems)
    name = args.model or ""
    if not preset:
        name, preset = _ask(
            "Model: a preset, or ORG/NAME of the hub", DEFAULT_PRESET, lambda text: (text, _model(text))
        )
    # The place is asked before the data, whose form depends on it.
    place = args.place or _ask("Run on one machine (local) or a cluster", "local", _place)
    if args.data:
        _data(args.data, place)
    kinds = "URL, file or directory" if place == "local" else "URL, or claim:NAME of a PersistentVolumeClaim"
    data = args.data or _ask(f"Data: {kinds}", "", lambda text: _data(text, place))
    return _with_row_count(Answers(preset, name, data, place == "local"))


def _with_row_count(answers: Answers) -> Answers:
    """Add the number of training rows, if they are on this machine; warn if they cannot be read."""
    from workflows import first_training

    if answers.folder is None:
        return answers
    print(f"reading the rows in {answers.folder}", file=sys.stderr)
    rows, problem = first_training.try_to_count(answers.folder, answers.pattern)
    if problem:
        print(f"warning: {problem}", file=sys.stderr)
    return replace(answers, training_rows=rows)


def _ask(question: str, default: str, parse: Callable[[str], Any]) -> Any:
    """Ask until ``parse`` accepts the answer, and return its result.

    Raises:
        Cancelled: standard input ended.
    """
    while True:
        print(f"{question}{f' [{default}]' if default else ''}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            raise Cancelled("no answer: nothing was written")
        try:
            if answer := line.strip() or default:
                return parse(answer)
        except InvalidInput as error:
            print(error, file=sys.stderr)


def _model(name: str) -> Model:
    from presets import UnknownPreset, model
    from workflows.spec import preset_rules

    try:
        preset = model(name)
    except UnknownPreset as error:
        raise InvalidInput(
            Problem(f'unknown model "{name}"', "--model", fix=preset_rules.how_to_find(error))
        ) from None
    if not preset.tuning:
        reason = f": {preset.cannot_tune}" if preset.cannot_tune else ""
        fix = "choose one with TUNING yes: argotune presets"
        raise InvalidInput(Problem(f"{preset.name} cannot be tuned{reason}", "--model", fix=fix))
    return preset


def _place(text: str) -> str:
    places = [place for place in ("local", "cluster") if place.startswith(text.lower())]
    if len(places) != 1:
        raise InvalidInput(Problem(f"{text!r} is not local or cluster", fix="write local or cluster"))
    return places[0]


def _data(text: str, place: str | None) -> str:
    """Return the place of the data, if rows can be there; ``place`` is None if it is not known yet."""
    from workflows.new_workspace import CLAIM, location_errors
    from workflows.spec import names

    path = "--data"
    if not text.isprintable():
        raise InvalidInput(Problem("contains control characters", path, fix="rename the file or directory"))
    if "://" in text:
        if errors := location_errors(text, allow_private=True):
            raise InvalidInput([replace(error, path=path) for error in errors])
    elif text.startswith(CLAIM):
        if not names.is_subdomain(text.removeprefix(CLAIM)):
            raise InvalidInput(Problem(f"{text!r} does not name a claim", path, fix=names.SUBDOMAIN_RULE))
        if place == "local":
            raise InvalidInput(Problem("a claim is on a cluster", path, fix="pass a directory, or --cluster"))
    elif place == "cluster":
        fix = f"upload the files and pass their URL, or copy them to a volume and pass {CLAIM}NAME"
        raise InvalidInput(Problem(f"a cluster cannot read {text} of this machine", path, fix=fix))
    elif not Path(text).exists():
        raise InvalidInput(Problem(f"{text} not found", path, fix="pass a URL, or an existing file or directory"))
    return text


def _check(content: str, file: str, *, local: bool) -> None:
    """Raise InvalidInput if ``argotune validate`` would reject the text."""
    from workflows.load_plans import plans_from_manifests
    from workflows.spec import load

    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, DEFAULT_FILE)
        written.write_text(content)
        try:
            plans_from_manifests(load(written, local=local), local=local)
        except InvalidInput as error:
            raise InvalidInput([replace(problem, file=file, line=0) for problem in error.problems]) from None


def _write(file: Path, content: str) -> None:
    from steps.runtime.files import write_text

    try:
        write_text(file, content)
    except OSError as error:
        problem = Problem(f"cannot write: {error.strerror}", file=str(file), fix="choose another file: -o FILE")
        raise InvalidInput(problem) from None
