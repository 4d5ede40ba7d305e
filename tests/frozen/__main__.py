"""Checks, or writes anew, what is frozen."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.frozen.compare import TOLERANCE, differences, help_makers, machine
from tests.frozen.help_texts import file_name, help_texts
from tests.frozen.items import ITEMS, Item, make_material
from tests.frozen.surface import describe_surface
from tests.frozen.work import HERE, Samples, Work

__all__ = ["SURFACE", "check_help", "check_item", "check_surface", "main"]

SURFACE = "api_surface.json"
_MACHINE, _MAKERS = "machine.json", "help_makers.json"
_SHOWN = 20


def check_surface(root: Path) -> list[str]:
    """Differences of the public names from those kept."""
    kept = json.loads((root.parent / SURFACE).read_text(encoding="utf-8"))
    return list(differences(kept, json.loads(json.dumps(describe_surface())), 0))


def check_help(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields each help text's name and its differing lines."""
    kept = {path.name: path.read_text(encoding="utf-8") for path in sorted((root / "help").glob("*.txt"))}
    shown = list(help_texts())
    now = {file_name(verbs): text for verbs, text in shown}
    spoken = {file_name(verbs): " ".join(verbs) for verbs, _ in shown}
    for name in dict.fromkeys((*kept, *now)):
        old, new = kept.get(name, "").splitlines(), now.get(name, "").splitlines()
        yield f"help {spoken.get(name, name)}".strip(), _differing_lines(old, new)


def check_item(item: Item, samples: Samples) -> tuple[list[str], str]:
    """Differences of an item's outcome from the one kept, and how they were looked for."""
    tolerance, how = _tolerance(item, samples)
    kept = json.loads(samples.expected(item.name).read_text(encoding="utf-8"))
    found = list(differences(kept, _outcome(item, samples), tolerance))
    if tolerance:  # a hash of numbers says nothing about how near they are
        found = [line for line in found if "sha256: kept" not in line or _is_recorded(line)]
    return found, how


def main() -> int:
    """Runs one of the two commands; exit code 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.frozen", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    check = commands.add_parser("check", help="compare everything with what is kept")
    check.add_argument("names", nargs="*", help="only items whose names begin so")
    write = commands.add_parser("write", help="write everything anew below FOLDER, in the layout of tests/")
    write.add_argument("folder", type=Path)
    write.add_argument(
        "--only", nargs="*", default=[], help="only items whose names begin so; api, help, or their names"
    )
    write.add_argument("--outcomes", action="store_true", help="keep the samples, write what they give")
    given = parser.parse_args()
    if given.command == "check":
        return _check(tuple(given.names))
    return _write(given.folder, tuple(given.only), outcomes_only=given.outcomes)


def _check(names: tuple[str, ...]) -> int:
    samples = Samples(HERE)
    count = agree = 0
    for name, found, how in _check_all(samples, names):
        count += 1
        agree += not found
        _say(f"{'differs' if found else 'ok'}  {name}{f' ({how})' if how else ''}")
        for line in found[:_SHOWN]:
            _say(f"    {line}")
        if len(found) > _SHOWN:
            _say(f"    and {len(found) - _SHOWN} more")
    _say(f"{count} items, {agree} agree")
    return int(agree < count)


def _check_all(samples: Samples, names: tuple[str, ...]) -> Iterator[tuple[str, list[str], str]]:
    if _is_asked("api surface", names):
        yield "api surface", check_surface(samples.root), ""
    if _is_asked("help", tuple(name.split()[0] for name in names)):
        for name, found in check_help(samples.root):
            if _is_asked(name, names):
                yield name, found, _other_makers(samples)
    for item in ITEMS:
        if not _is_asked(item.name, names):
            continue
        if item.lacking:
            _say(f"left out  {item.name}: needs {', '.join(item.lacking)}")
            continue
        try:
            yield item.name, *check_item(item, samples)
        except Exception as error:  # one broken item must not hide the others
            yield item.name, [f"{type(error).__name__}: {line}" for line in str(error).splitlines()], "not compared"


def _write(folder: Path, names: tuple[str, ...], *, outcomes_only: bool) -> int:
    root = folder / "frozen"
    samples = Samples(root)
    for name in ("help", "samples", "expected"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if _is_asked("api surface", names):
        _save_json(folder / SURFACE, describe_surface())
    if _is_asked("help", names):
        for old in (root / "help").glob("*.txt"):
            old.unlink()
        for verbs, text in help_texts():
            (root / "help" / file_name(verbs)).write_text(text, encoding="utf-8")
        _save_json(root / "expected" / _MAKERS, help_makers())
    if not samples.folder("shared").exists():
        make_material(samples)
    for item in ITEMS:
        if not _is_asked(item.name, names):
            continue
        if item.make is not None and not outcomes_only and not samples.folder(item.name).exists():
            with tempfile.TemporaryDirectory() as place:
                work = Work(Path(place), samples)
                work.take("shared")
                item.make(work, samples.folder(item.name))
        _save_json(samples.expected(item.name), _outcome(item, samples))
        _say(f"wrote  {item.name}")
    if any(_is_asked(item.name, names) for item in ITEMS):
        _save_json(root / "expected" / _MACHINE, machine())
    return 0


def _outcome(item: Item, samples: Samples) -> object:
    with tempfile.TemporaryDirectory() as place:
        work = Work(Path(place), samples)
        work.take("shared")
        for taken in (item.name, *item.takes):
            if samples.folder(taken).exists():
                work.take(taken)
        outcome = item.outcome(work)
    return json.loads(json.dumps(outcome))


def _tolerance(item: Item, samples: Samples) -> tuple[float, str]:
    kept = json.loads((samples.root / "expected" / _MACHINE).read_text(encoding="utf-8"))
    if kept == machine() and not item.loose:
        return 0, "to the bit"
    tolerance = TOLERANCE if item.loose else item.tolerance
    return tolerance, f"within {tolerance:g}{'' if item.loose else ', another processor or torch'}"


def _other_makers(samples: Samples) -> str:
    kept = json.loads((samples.root / "expected" / _MAKERS).read_text(encoding="utf-8"))
    return "" if kept == help_makers() else f"kept with {kept}, now {help_makers()}"


def _is_recorded(line: str) -> bool:
    """Whether a hash is of what was given, such as weights and prompts, and not of numbers computed here."""
    return any(f"{word}_sha256" in line for word in ("weights", "prompts", "truth", "lexicon", "images", "image_list"))


def _is_asked(name: str, names: tuple[str, ...]) -> bool:
    return not names or any(name.startswith(start) for start in names)


def _differing_lines(old: list[str], new: list[str]) -> list[str]:
    import difflib

    return [line for line in difflib.unified_diff(old, new, "kept", "now", lineterm="", n=0) if line[:2] != "@@"]


def _save_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
