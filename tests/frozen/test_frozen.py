"""The frozen things, one test each: the same comparisons as `python -m tests.frozen check`."""

from __future__ import annotations

import pytest

from tests.frozen.__main__ import check_help, check_item, check_surface
from tests.frozen.items import ITEMS, Item
from tests.frozen.work import HERE, Samples

ADVICE = "if this is meant, write it anew with `python -m tests.frozen write` and review the diff"


def agree(found: list[str]) -> None:
    assert not found, "\n".join([*found[:40], ADVICE])


def test_public_names() -> None:
    agree(check_surface(HERE))


def test_help_of_every_verb() -> None:
    agree([f"{name}: {line}" for name, lines in check_help(HERE) for line in lines])


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name.replace(" ", "-"))
def test_item(item: Item) -> None:
    if item.lacking:
        pytest.skip(f"needs {', '.join(item.lacking)}")
    agree(check_item(item, Samples(HERE))[0])


def test_samples_name_no_machine() -> None:
    """Samples are read anywhere, and tell nothing of where they were written."""
    for path in sorted([*HERE.joinpath("samples").rglob("*"), *HERE.joinpath("expected").rglob("*")]):
        if path.is_file():
            content = path.read_bytes()
            for name in (b"/tmp/", b"/home/", b"/root/", b"/work/", b"site-packages"):
                assert name not in content, (path, name)
