"""The command line with a training that stands still at a step: `held_training STEP RELEASE ARGUMENTS...`.

When the log holds STEP records the run waits for the file RELEASE, so that a signal comes at that step and no other,
however late the other process wakes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from carzero.cli.main import run
from carzero.training.run_folder import RunFolder


def main(step: int, release: Path) -> None:
    append_log = RunFolder.append_log

    def append_and_wait(self: RunFolder, record: Any) -> None:
        append_log(self, record)
        if len((self.path / "log.jsonl").read_text().splitlines()) >= step:
            while not release.exists():
                time.sleep(0.01)

    RunFolder.append_log = append_and_wait  # type: ignore[method-assign]
    run()


if __name__ == "__main__":
    _, at, file, *sys.argv[1:] = sys.argv
    main(int(at), Path(file))
