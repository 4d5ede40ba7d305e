"""The campaign: children that read inputs, their outcomes counted, and each fault kept as files."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.fuzz.child import keep_input
from tests.support.commands import ENVIRONMENT, ROOT, start

HANG_S = 600  # of no word at all: a child that waits for something uses no processor time
GOOD = ("read", "refused")
_LIFE = 4000  # inputs of a child: libraries keep memory, which would count as the next input's


@dataclass
class Result:
    """What came of a campaign.

    Attributes:
        counts: of outcomes, by target.
        faults: what was found, once each kind, and where it is kept.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, fault: str, place: str) -> None:
        """Notes a fault, the first of those whose last line is the same."""
        last = fault.partition(":")[0] + re.sub(r"0x[0-9a-f]+|[0-9]+", "", fault.rpartition("\n")[2][:60])
        if last not in self.faults:
            self.faults[last] = f"{fault} {place}"
            sys.stderr.write(self.faults[last] + "\n")

    def total(self, kind: str = "") -> int:
        return sum(count for each in self.counts.values() for name, count in each.items() if not kind or name == kind)

    def table(self) -> str:
        rows = [f"{'target':<16}{'inputs':>9}{'refused':>9}{'read':>9}{'faults':>8}"]
        for name, each in [*sorted(self.counts.items()), ("all", sum(self.counts.values(), Counter()))]:
            refused, read, all_of_them = each["refused"], each["read"], sum(each.values())
            rows.append(f"{name:<16}{all_of_them:>9,}{refused:>9,}{read:>9,}{all_of_them - refused - read:>8,}")
        return "\n".join(rows)


class Child:
    """A process of `tests.fuzz.child`, started when it is needed."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.inputs = 0

    def run(self, job: Mapping[str, object]) -> Iterator[dict]:
        """Yields what the child says, up to the end of the job or of the child."""
        if self.process is None:
            quiet = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join([str(ROOT), *sys.path])}
            quiet |= {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system"}
            self.inputs = 0
            command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.child", self.work]
            pipe = subprocess.PIPE
            self.process = start(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, env=quiet)
            self.lines = queue.SimpleQueue()
            threading.Thread(target=_pass_on, args=(self.process.stdout, self.lines), daemon=True).start()
        process = self.process
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        while True:
            try:
                line = self.lines.get(timeout=HANG_S)
            except queue.Empty:
                break
            if not line:
                yield {"ended": process.wait(HANG_S), "said": process.stderr.read()[-2000:]}
                self.close()
                return
            event = json.loads(line)
            if "done" in event:
                if self.inputs > _LIFE:
                    self.close()
                return
            self.inputs += "begins" in event
            yield event
        yield {"ended": "waits", "said": f"no word for {HANG_S} s"}
        self.close()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(HANG_S)
            self.process = None


def _pass_on(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def run_campaign(jobs: Iterator[dict[str, object]], keep: Path | None = None, *, until: float | None = None) -> Result:
    """Runs jobs one after another.

    Args:
        jobs: `{"target", "seed", "start", "count"}`, or `{"target", "start", "folders"}` for kept inputs.
        keep: where inputs that are faults are kept; None keeps none.
        until: a time (of `time.monotonic`) at which no new job is begun.
    """
    result = Result()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        child = Child(Path(name))
        try:
            for job in jobs:
                if until is not None and time.monotonic() > until:
                    break
                _run_job(child, job, keep, result)
        finally:
            child.close()
    return result


def _run_job(child: Child, job: dict[str, object], keep: Path | None, result: Result) -> None:
    counts = result.counts.setdefault(str(job["target"]), Counter())
    at = job["start"]
    for event in child.run({**job, "keep": None if keep is None else str(keep.absolute())}):
        if "begins" in event:
            at = event["begins"]
            continue
        kind, said, kept = event.get("kind", ""), event["said"], event.get("kept", "")
        if "ended" in event:
            kind = "hang" if event["ended"] in (-24, "waits") else f"crash {event['ended']}"
            if keep is not None:
                kept = keep_input(child.work / "input", keep, str(job["target"]), kind, said)
        counts[kind] += 1
        if kind not in GOOD:
            result.add(f"{job['target']} {at}: {kind}: {said.strip()[-400:]}", kept)
    left = int(job.get("count", 0)) - (at + 1 - int(job["start"]))
    if child.process is None and left > 0:
        _run_job(child, {**job, "start": at + 1, "count": left}, keep, result)
