"""Measures how the rules read hard sentences of 16 kinds: what is said against what is read, in both directions.

    python benchmarks/reports_kinds.py [--set SET] [--half HALF] [--show KIND] [--json OUT]

tests/reports/fixtures/kinds.jsonl holds 400 sentences with gold; kinds_second.jsonl 128, kinds_third.jsonl 80 and, in
the manner of ordinary reports, kinds_ordinary.jsonl 60 that were written later, each before the rules were run on it;
kinds_terse.jsonl has 281 terse sentences and short reports, of which the held-out half (124) was not looked at while
the rules were mended. docs/reports.md has the figures at first sight; once they were taken the errors of the other
sets were read and their kinds mended, so that the figures of now are of sentences tuned on. A finding with a side
("pleural effusion@left") is looked for on that side. "not said" counts findings that are read as present or uncertain
without gold.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from carzero.reports.agreement import report_presence
from carzero.reports.rules import find_findings
from carzero.reports.schema import ReportFinding

FIXTURES = Path(__file__).parents[1] / "tests" / "reports" / "fixtures"
SETS = {
    "first": "kinds",
    "second": "kinds_second",
    "third": "kinds_third",
    "ordinary": "kinds_ordinary",
    "terse": "kinds_terse",
}
SAID = ("present", "absent", "uncertain", "not said")
READ = ("present", "absent", "uncertain", "missed")


class Reading(NamedTuple):
    """One finding of one sentence."""

    kind: str
    text: str
    finding: str
    said: str
    read: str


def load_sentences(name: str, half: str) -> list[dict]:
    """The sentences of a half of a set."""
    sentences = [
        json.loads(line) for line in (FIXTURES / f"{SETS[name]}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [each for each in sentences if half == "all" or each["held_out"] == (half == "held-out")]


def presence_of(findings: Iterable[ReportFinding], name: str) -> str:
    """What is read of a finding, or of a finding on one side."""
    name, _, side = name.partition("@")
    chosen = [one for one in findings if one.finding == name and (not side or one.laterality in (side, "bilateral"))]
    return report_presence(chosen).get(name, "missed")


def readings(sentences: Iterable[dict]) -> Iterator[Reading]:
    """Each finding that is said or read."""
    for each in sentences:
        found = find_findings(each["text"])
        for name, said in each["findings"].items():
            yield Reading(each["kind"], each["text"], name, said, presence_of(found, name))
        named = {name.partition("@")[0] for name in each["findings"]}
        for name, presence in report_presence(found).items():
            if presence != "absent" and name not in named:
                yield Reading(each["kind"], each["text"], name, "not said", presence)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=tuple(SETS), default="first")
    parser.add_argument("--half", choices=("tuned-on", "held-out", "all"), default="all")
    parser.add_argument("--show", help="list what is misread of a kind, or of 'all'")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = list(readings(load_sentences(options.set, options.half)))
    if options.show:
        for row in rows:
            if row.said != row.read and options.show in (row.kind, "all"):
                print(f"{row.kind}: {row.text!r} {row.finding}: {row.said}, read as {row.read}")
        return
    pairs = [(said, read) for said in SAID for read in READ if (said, read) != ("not said", "absent")]
    pairs.remove(("not said", "missed"))
    counts = {
        kind: Counter((r.said, r.read) for r in rows if r.kind == kind) for kind in dict.fromkeys(r.kind for r in rows)
    }
    counts["all"] = Counter((r.said, r.read) for r in rows)
    print("| kind | " + " | ".join(f"{said} > {read}" for said, read in pairs) + " |")
    print("|---|" + "---|" * len(pairs))
    for kind, count in counts.items():
        print(f"| {kind} | " + " | ".join(str(count[pair]) for pair in pairs) + " |")
    if options.json:
        table = {kind: {f"{said} > {read}": n for (said, read), n in count.items()} for kind, count in counts.items()}
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
