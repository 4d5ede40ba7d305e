"""A small campaign with a fixed seed, the inputs that were faults once, and whether a campaign finds what is there.

`make fuzz MINUTES=30` reads more (SECURITY.md). What it finds is a folder; moved to `tests/fuzz/faults/TARGET/`, it is
read here.
"""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.campaign import run_campaign
from tests.fuzz.targets import TARGETS
from tests.support.faulty_readers import FAULTS

FOUND = Path(__file__).parent / "faults"
COUNT = 50  # inputs of a target, times its weight: about a minute for all


def test_a_fixed_campaign_finds_nothing() -> None:
    jobs = [
        {"target": name, "seed": "suite", "start": 0, "count": int(COUNT * target.weight)}
        for name, target in TARGETS.items()
    ]
    result = run_campaign(iter(jobs))
    assert not result.faults, "\n".join(result.faults.values())
    assert result.total() == sum(int(job["count"]) for job in jobs)
    assert [name for name, counts in result.counts.items() if not counts["read"]] == [], "all samples are refused"
    assert result.total("refused") > 1000, result.table()


def test_what_was_found_before_stays_mended() -> None:
    folders = {path.name: sorted(each for each in path.iterdir() if each.is_dir()) for path in sorted(FOUND.iterdir())}
    assert sum(map(len, folders.values())) > 10
    jobs = [
        {"target": name.replace("_", " "), "start": 0, "folders": [str(each) for each in found]}
        for name, found in folders.items()
    ]
    result = run_campaign(iter(jobs))
    assert not result.faults, "\n".join(result.faults.values())
    assert result.total() == sum(map(len, folders.values()))


def test_a_campaign_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"anything")
    jobs = [
        {"target": f"{read.__module__}:{read.__name__}", "start": 0, "folders": [str(tmp_path / "input")]}
        for read in FAULTS
    ]
    result = run_campaign(iter(jobs), tmp_path / "kept")
    assert {name.partition(":")[2]: [*counts] for name, counts in result.counts.items()} == {
        read.__name__: [kind] for read, kind in FAULTS.items()
    }
    assert len(result.faults) == len(FAULTS)
    for folder in (path for path in (tmp_path / "kept").rglob("input") if path.is_file()):
        assert folder.read_bytes() == b"anything"
    assert len([*(tmp_path / "kept").rglob("*.said")]) == len(FAULTS)
