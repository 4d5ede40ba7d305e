"""A child of the campaign: makes inputs from a seed, or takes them from files, reads each, and says how it went.

It has a limit of memory and, for each input, of processor time. What it is about to read lies in a file before it is
read, so that the parent has it where the child is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

MEMORY_MB = 1500  # above what the interpreter holds with torch loaded
CPU_S = 10
LOADED = 3  # what a busy machine may add to the processor time before the child is killed


@dataclass(frozen=True)
class Outcome:
    """How one input went: "read", "refused", or what is wrong; and the last words of it."""

    kind: str
    said: str = ""


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    report = os.fdopen(os.dup(1), "w", buffering=1)
    work = Path(sys.argv[1])
    spoken = (work / "spoken").open("w+b")
    os.dup2(spoken.fileno(), 1)
    os.dup2(spoken.fileno(), 2)
    _quiet()
    limited = False
    for line in sys.stdin:
        job = json.loads(line)
        for number, files in enumerate(_inputs(job), start=job["start"]):
            folder = work / "input"
            shutil.rmtree(folder, ignore_errors=True)
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            if not limited:
                _limit_memory()
                limited = True
            print(json.dumps({"begins": number, "target": job["target"]}), file=report)
            outcome = _judge(_target(job["target"]), folder, spoken)
            event = {"number": number, "target": job["target"], **asdict(outcome)}
            if job["keep"] and outcome.kind not in ("read", "refused"):
                event["kept"] = keep_input(folder, Path(job["keep"]), job["target"], outcome.kind, outcome.said)
            print(json.dumps(event), file=report)
        print(json.dumps({"done": job["target"]}), file=report)


def _target(name: str) -> Callable[[Path], None]:
    from tests.fuzz.targets import TARGETS

    if ":" in name:  # a function that is no target, by its module
        module, _, function = name.partition(":")
        found: Callable[[Path], None] = getattr(importlib.import_module(module), function)
        return found
    return TARGETS[name].read


def _inputs(job: dict) -> Iterator[dict[str, bytes]]:
    from tests.fuzz.mutate import mutate
    from tests.fuzz.targets import TARGETS

    if "folders" in job:
        for folder in map(Path, job["folders"]):
            paths = [folder] if folder.is_file() else [path for path in sorted(folder.rglob("*")) if path.is_file()]
            root = folder.parent if folder.is_file() else folder
            yield {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        return
    seeds = TARGETS[job["target"]].seeds()
    contents = [content for files in seeds for content in files.values()]
    for number in range(job["start"], job["start"] + job["count"]):
        rng = random.Random(f"{job['seed']}/{job['target']}/{number}")
        # The samples as they are come first: a reader that refuses all it is given would find nothing.
        yield dict(seeds[number]) if number < len(seeds) else mutate(rng.choice(seeds), rng, contents)


def _quiet() -> None:
    """As the command line has it: what libraries log goes nowhere unless it is asked for."""
    from carzero.cli.console import quiet_libraries

    logging.getLogger().addHandler(logging.NullHandler())
    quiet_libraries()


def _limit_memory() -> None:
    """Torch and the weights are loaded before; what they hold does not count."""
    from tests.fuzz.targets import prepare

    prepare()
    held = next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmData"
    )
    most = (held << 10) + (MEMORY_MB << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _judge(read: Callable[[Path], None], folder: Path, spoken) -> Outcome:
    from carzero.errors import CARZeroError

    before = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(before) + CPU_S * LOADED, hard))
    outcome = Outcome("read")
    try:
        read(folder)
    except CARZeroError as error:
        outcome = Outcome("refused", str(error)[:300])
        if any(isinstance(each, MemoryError) for each in _chain(error)) or "not enough memory" in str(error):
            outcome = Outcome("memory", str(error)[-300:])
        elif len(str(error)) > 20_000:
            outcome = Outcome("endless message", str(error)[:300])
    except MemoryError:
        outcome = Outcome("memory", traceback.format_exc()[-2000:])
    except AssertionError:
        outcome = Outcome("wrong result", traceback.format_exc()[-2000:])
    except Exception:
        outcome = Outcome("exception", traceback.format_exc()[-3000:])
    except BaseException:
        outcome = Outcome("end of the interpreter", traceback.format_exc()[-2000:])
    seconds = time.process_time() - before
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    if size := os.fstat(spoken.fileno()).st_size:
        spoken.seek(0)
        said = spoken.read(4000).decode("utf-8", "replace")
        spoken.truncate(0)
        spoken.seek(0)
        if outcome.kind in ("read", "refused"):
            outcome = Outcome("output", f"{size} bytes: {said}")
    if seconds > CPU_S and outcome.kind in ("read", "refused"):
        outcome = Outcome("slow", f"{seconds:.1f} s")
    return outcome


def keep_input(folder: Path, keep: Path, target: str, kind: str, said: str) -> str:
    """Copies an input to where faults are kept, and what was said beside it; returns its place."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()))
    place = keep / target.replace(" ", "_") / f"{kind.replace(' ', '_')}-{digest.hexdigest()[:12]}"
    if not place.exists():
        shutil.copytree(folder, place, symlinks=True)
        place.with_name(place.name + ".said").write_text(said, encoding="utf-8")
    return str(place)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    main()
