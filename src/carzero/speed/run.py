"""A speed run: the bare image tower, scoring, reading and the whole, timed in turns on the user's own machine."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from carzero.core.run_record import RunRecord
from carzero.core.system import count_cores, memory_gib, read_processor
from carzero.errors import ConfigurationError, describe
from carzero.images.loading import Readers
from carzero.speed.timing import SpeedRow, summarise, time_in_turns
from carzero.weights.source import WeightsSource

NOTES = (
    "The image tower is timed bare, on tensors in memory; scoring is the tower, the alignment with prompts encoded "
    "beforehand, and pooling, on the same tensors. A ratio compares the two within one turn.",
    "Read: decoding, checks and resizing, by processes on all cores, of the bundled image at 1,024 px; its "
    "files lie in the system's cache.",
    "End to end: PNG files in, scores out, as `carzero predict` does it; reading runs beside scoring.",
)

_READ_ITEMS = 8

_UNSTEADY = 2  # times that the fastest turn exceeds the slowest on a machine left alone: seldom


@dataclass(frozen=True, slots=True)
class SpeedResult:
    """What was timed, where, and how.

    Attributes:
        rows: the table.
        machine: see `describe_machine`.
        settings: weights, batch size, prompts, turns, date.
    """

    rows: list[SpeedRow]
    machine: dict[str, object]
    settings: dict[str, object]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "machine": self.machine,
            "settings": self.settings,
            "notes": self.notes,
        }

    @property
    def notes(self) -> list[str]:
        """What the figures are, and whether the machine was busy with something else."""
        unsteady = [row.measure for row in self.rows if row.highest > _UNSTEADY * row.lowest]
        busy = (
            f"The machine seems to have been busy: {len(unsteady)} of {len(self.rows)} rates differ by more than "
            f"{_UNSTEADY} times between turns, so the medians are worth little. Run it again when nothing else runs."
        )
        return [*NOTES, *([busy] if unsteady else [])]


@dataclass(frozen=True, slots=True)
class SpeedRun:
    """The settings of one run.

    Attributes:
        weights: where they are; None: random weights of the paper's size.
        dtypes: precisions; none: those worth timing on this machine.
        prompts: numbers of prompts to score with; the first one is used end to end.
        batch_size: images in one pass.
        turns: how often each thing is timed.
        device: where to compute; None takes a GPU if there is one.

    Raises:
        ConfigurationError: no prompts, or fewer than one turn or image.
    """

    weights: WeightsSource | None
    dtypes: Sequence[str] = ()
    prompts: Sequence[int] = (14, 192)
    batch_size: int = 8
    turns: int = 5
    device: str | None = None

    def __post_init__(self) -> None:
        given = {"prompts": len(self.prompts), "batch_size": self.batch_size, "turns": self.turns}
        if wrong := {name: value for name, value in given.items() if value < 1}:
            raise ConfigurationError(describe("There is nothing to time", got=wrong, expected="at least 1 of each"))

    def execute(self, advance: Callable[[int, int, int], None] = lambda done, failed, total: None) -> SpeedResult:
        """Times everything.

        Args:
            advance: called with the number of timings done, 0, and their total.

        Raises:
            CARZeroError: weights, device, precision or number of prompts that is not available.
        """
        from carzero.speed.tasks import (
            FULL_SIZE,
            build_prompts,
            device_of,
            list_reading,
            list_scoring,
            load_classifiers,
            write_images,
        )

        prompt_sets = {count: build_prompts(count) for count in self.prompts}
        classifiers = load_classifiers(self.weights, self.dtypes, self.device)
        with tempfile.TemporaryDirectory(prefix="carzero-speed-") as folder, Readers(isolated=True) as readers:
            images = write_images(Path(folder), max(_READ_ITEMS, 2 * self.batch_size))
            tasks = list_reading(classifiers[0], images, readers)
            for classifier in classifiers:
                tasks += list_scoring(classifier, prompt_sets, images["PNG"], readers, self.batch_size, len(tasks))
            total = len(tasks) * self.turns
            seconds = time_in_turns(tasks, self.turns, advance=lambda done, failed: advance(done, failed, total))
        return SpeedResult(
            summarise(tasks, seconds), describe_machine(device_of(classifiers[0])), self._settings(FULL_SIZE)
        )

    def _settings(self, full_size: str) -> dict[str, object]:
        return {
            "date": RunRecord().date,
            "weights": full_size if self.weights is None else self.weights.name,
            "prompts": list(self.prompts),
            "batch_size": self.batch_size,
            "turns": self.turns,
        }


def describe_machine(device: str) -> dict[str, object]:
    """The machine as plain values.

    Args:
        device: where scores are computed, as torch names it.

    Returns:
        `processor`, `cores` (that this process may use), `threads` (torch's), `features`, `memory_gib` (None where it
        cannot be told), `device`, `gpu` (its name, or None), and versions.
    """
    import torch
    import transformers

    from carzero._version import __version__

    processor, features = read_processor()
    return {
        "processor": processor,
        "cores": count_cores(),
        "threads": torch.get_num_threads(),
        "features": features or [torch.backends.cpu.get_cpu_capability()],
        "memory_gib": memory_gib(),
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "carzero": __version__,
    }
