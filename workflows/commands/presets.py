"""``argotune presets``: lists the models that can be tuned and served, and adds models of the hub."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from presets import Model, Prices, UnknownPreset, known_models, model, own
from workflows.errors import InvalidInput, Problem, from_step_error

_COLUMNS = (
    *("NAME", "TUNING", "WEIGHTS", "TUNE GIB", "SERVE GIB"),
    *("CONTEXT", "SERVED ON", "USD/HOUR", "LICENCE", "GATED"),
)
_WIDE = ("ARCHITECTURE", "REPOSITORY", "REVISION")
EXAMPLES = """Examples:
  # List all presets, or those with a word in their name, architecture or license
  argotune presets
  argotune presets qwen
  # Tune or serve any model of the hub: preset: {name: Qwen/Qwen3-8B}
  argotune presets add Qwen/Qwen3-8B
  # For a machine that cannot reach the hub
  argotune presets add Qwen/Qwen3-8B -o presets/qwen3-8b.yaml

TUNE GIB and SERVE GIB estimate the memory of one GPU: qlora with argotune's defaults, and vLLM with one request of
1,024 tokens. SERVED ON is the smallest instance type for the weights. 'argotune plan' estimates a Workspace.
"""


class _AnyWord(dict[str, argparse.ArgumentParser]):
    """The actions of the command; other words are accepted too."""

    def __contains__(self, word: object) -> bool:
        return True


class _Actions(argparse._SubParsersAction):
    """Actions of which ``ls`` is the default: a word that is none of them is its filter."""

    def add_parser(self, name: str, **settings: Any) -> argparse.ArgumentParser:
        """Add an action."""
        parser: argparse.ArgumentParser = super().add_parser(name, **settings)
        self.choices = _AnyWord(self._name_parser_map)
        return parser

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Run the action that the first word names."""
        words = values if values[0] in self._name_parser_map else ["ls", *values]
        super().__call__(parser, namespace, words, option_string)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``argotune presets``."""
    from workflows.commands import compile as compiling

    parser.epilog = EXAMPLES
    parser.set_defaults(site=None, word="")
    verbs = parser.add_subparsers(dest="action", metavar="ACTION", action=_Actions)
    listing = verbs.add_parser("ls", help="List all presets", description="List all presets")
    listing.add_argument("word", nargs="?", default="", metavar="WORD", help="Word in name, architecture or license")
    formats = ["table", "wide", "name", "json", "yaml"]
    for listed, default in ((parser, "table"), (listing, argparse.SUPPRESS)):
        text = "Output format (default: table)"
        listed.add_argument("-o", "--output", choices=formats, default=default, help=text)
    show = verbs.add_parser("show", help="Show one preset", description="Show one preset")
    show.add_argument("name", metavar="NAME", help="Preset name, older name or Hugging Face id")
    show.add_argument("-o", "--output", choices=["yaml", "json"], default="yaml", help="Output format (default: yaml)")
    compiling.add_site(listing)
    compiling.add_site(show)
    title = "Derive the preset of a model on the hub"
    adding = verbs.add_parser("add", help=title, description=title)
    adding.add_argument("name", metavar="ORG/NAME[@REVISION]", help="Hugging Face id, and a branch, tag or commit")
    destination = "File to write, or - for standard output (default: the cache)"
    adding.add_argument("-o", "--output", metavar="FILE", help=destination)


def run(args: argparse.Namespace) -> int:
    """List the presets, show one, or add one.

    Raises:
        InvalidInput: no preset has this name, or a preset file is invalid.
        ArgotuneError: the hub does not have the model, or cannot be read.
    """
    from workflows.plan import own_presets
    from workflows.spec import preset_rules

    if args.action == "add":
        return _add(args.name, args.output)
    own_presets.use(args.site)
    if args.action == "show":
        try:
            preset = model(args.name)
        except UnknownPreset as error:
            fix = f"did you mean {', '.join(error.near)}?" if error.near else preset_rules.how_to_add(args.name)
            raise InvalidInput(Problem(f'unknown preset "{args.name}"', fix=fix)) from None
        print(_dump(_facts(preset), args.output))
    else:
        _list([preset for preset in known_models() if _matches(preset, args.word)], args)
    return 0


def _list(found: list[Model], args: argparse.Namespace) -> None:
    if not found:
        raise InvalidInput(Problem(f'no preset matches "{args.word}"', fix="argotune presets lists all"))
    if args.output == "name":
        print("\n".join(preset.name for preset in found))
    elif args.output in ("json", "yaml"):
        print(_dump([_facts(preset) for preset in found], args.output))
    else:
        from workflows.plan import site

        _table(found, site.prices(args.site), wide=args.output == "wide")


def _matches(preset: Model, word: str) -> bool:
    names = (preset.name, *preset.aliases, preset.repository, preset.architecture, preset.licence)
    return any(word.lower() in name.lower() for name in names)


def _add(name: str, output: str | None) -> int:
    """Derive a preset, and write it to a file or to the cache."""
    match = own.HUB_NAME.fullmatch(name)
    if match is None:
        raise InvalidInput(Problem(f'"{name}" is not a Hugging Face id', fix="write ORG/NAME or ORG/NAME@REVISION"))
    preset = _derive(match["repository"], match["revision"] or "")
    text = own.as_yaml(preset)
    if output == "-":
        print(text, end="")
    else:
        file = Path(output) if output else own.cache_folder() / own.cache_file_name(name)
        _write(file, text)
        print(f"wrote {file}", file=sys.stderr)
    for line in _summary(preset):
        print(line, file=sys.stderr)
    if preset.cannot_tune and preset.cannot_serve:
        raise InvalidInput(Problem(f"{preset.name} can be neither tuned nor served", fix="choose another model"))
    return 0


def _derive(repository: str, revision: str) -> Model:
    from presets.derive import NotAModel, derive
    from steps.models import hub_metadata
    from steps.runtime.errors import StepError

    try:
        return derive(hub_metadata.read(repository, revision))
    except StepError as error:
        raise from_step_error(error) from None
    except NotAModel as error:
        fix = "choose a language model in transformers' format"
        raise InvalidInput(Problem(f"{repository} cannot be used: {error}", fix=fix)) from None


def _write(file: Path, text: str) -> None:
    from steps.runtime.files import write_text

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        problem = Problem(f"cannot write: {error.strerror}", file=str(file), fix="choose another file: -o FILE")
        raise InvalidInput(problem) from None


def _summary(preset: Model) -> Iterator[str]:
    """Yield what was found, for people."""
    kind = f"mixture of {preset.experts} experts" if preset.experts else "dense"
    size = f"{preset.parameters / 1e9:.2f}B parameters" if preset.parameters else f"{preset.weights_gib:g} GiB"
    yield (
        f"{preset.repository} at {preset.revision[:12]}: {preset.architecture}, {kind}, {size}, context "
        f"{preset.context_length:,}, {preset.cache_bytes_per_token / 1024:,.0f} KiB of cache per token, license "
        f"{preset.licence}{' (gated)' if preset.gated else ''}"
    )
    yield f"tune: no, {preset.cannot_tune}" if preset.cannot_tune else f"tune: yes, {', '.join(preset.lora_targets)}"
    yield f"serve: no, {preset.cannot_serve}" if preset.cannot_serve else "serve: yes"
    if preset.cannot_serve_adapters and not preset.cannot_serve:
        yield f"serve adapters: no, {preset.cannot_serve_adapters}"


def _facts(preset: Model) -> dict[str, Any]:
    return preset.model_dump(mode="json", exclude_defaults=True)


def _dump(value: Any, form: str) -> str:
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip("\n")


def _table(all_models: list[Model], prices: Prices, *, wide: bool) -> None:
    from workflows.estimate import preset_memory
    from workflows.spec import resource_rules

    rows = [(*_COLUMNS, *(_WIDE if wide else ()))]
    for preset in all_models:
        size = resource_rules.smallest_server(preset)
        price = prices.usd_per_hour.get(size.name) if size else None
        row = (
            preset.name,
            "deprecated" if preset.deprecated else "yes" if preset.tuning else "-",
            f"{preset.weights_gib:.1f}Gi",
            _gib(preset_memory.tuning_gib(preset)),
            _gib(preset_memory.serving_gib(preset)),
            str(preset.context_length),
            size.name if size else "-",
            f"{price.regular:.2f}" if price else "-",
            preset.licence,
            "yes" if preset.gated else "-",
        )
        rows.append((*row, *((preset.architecture, preset.repository, preset.revision) if wide else ())))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _gib(memory: float | None) -> str:
    return "-" if memory is None else f"{memory:.1f}"
