"""A score table in parts: a folder that many workers fill, that says which run it belongs to, and that can be resumed.

    scores/
      part-00000.parquet ...        rows as `carzero predict` writes them, in the order of the inputs
      _failures/part-00000.parquet  image_id, path and reason of images that were not scored; where there are some
      _attempts/                    notes on parts under work; gone when the run is complete
      _manifest.json                what the scores depend on; "complete" is false while parts may be missing

Readers of Parquet folders (pandas, Arrow, Spark) pass over names that begin with "_".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.atomic import replace_when_done
from carzero.core.hashing import hash_texts
from carzero.core.outputs import check_parent, existing_output, foreign_files, make_folder, waiting_run
from carzero.core.run_record import OpenFolder, RunLock, check_same, load_manifest, save_manifest
from carzero.core.tables import FOLDER_MANIFEST, load_table
from carzero.errors import TableError, describe, refuse_broken
from carzero.inference.score_table import mark_unfamiliar, score_schema, to_frame, to_rows

if TYPE_CHECKING:
    import pyarrow as pa


FAILURES_FOLDER, _ATTEMPTS = "_failures", "_attempts"
_FAILURE_COLUMNS = ("image_id", "path", "reason")
_RUN = "carzero_run"  # in the manifest, and in each part's own metadata, so that a stray part is known by itself


@dataclass(frozen=True, slots=True)
class ScoreFolder:
    """The folder of one run.

    Attributes:
        path: the folder.
        run: hash of what the scores depend on and of the list of images; every part carries it.
        labels: findings, in the order of the columns.
        mark: those that are unfamiliar, see `mark_unfamiliar`.
    """

    path: Path
    run: str
    labels: tuple[str, ...]
    mark: str = ""

    def part_path(self, number: int) -> Path:
        """The scored rows of a part; the file is there once the part is finished."""
        return self.path / f"part-{number:05d}.parquet"

    def failures_path(self, number: int) -> Path:
        """The failures of a finished part, if it has any."""
        return self.path / FAILURES_FOLDER / f"part-{number:05d}.parquet"

    def attempts_path(self, number: int) -> Path:
        """Notes of workers that have begun this part and not finished it."""
        return self.path / _ATTEMPTS / f"part-{number:05d}.jsonl"

    def save_part(
        self, number: int, rows: Sequence[Mapping[str, object]], failures: Sequence[Mapping[str, object]]
    ) -> None:
        """Writes a finished part.

        Failures go first: whoever dies between the two leaves a part that lacks rows, which a resumed run tries again.

        Args:
            number: of the part.
            rows: scored rows, see `score_row`; there may be none.
            failures: `image_id`, `path` and `reason`.
        """
        import pyarrow as pa

        if failures:
            schema = pa.schema([(name, pa.string()) for name in _FAILURE_COLUMNS])
            self._write(self.failures_path(number), pa.Table.from_pylist(list(failures), schema=schema))
        else:
            self.failures_path(number).unlink(missing_ok=True)
        frame = mark_unfamiliar(to_frame(rows, self.labels), self.mark)
        table = pa.Table.from_pandas(frame, schema=score_schema(self.labels, self.mark), preserve_index=False)
        self._write(self.part_path(number), table)

    def count_rows(self, number: int) -> int | None:
        """Scored rows of a part, read from the file's foot; None where the part is not finished.

        Raises:
            TableError: the file is broken, or a part of another run.
        """
        import pyarrow.parquet as pq

        path = self.part_path(number)
        if not path.exists():
            return None
        with refuse_broken(f"{path} cannot be read", error=TableError, then="delete it and resume the run"):
            foot = pq.read_metadata(path)
            run = (foot.metadata or {}).get(_RUN.encode(), b"").decode()
        if run != self.run:
            raise TableError(
                describe(f"{path} is a part of another run", got=run, expected=self.run, then="move it elsewhere")
            )
        return int(foot.num_rows)

    def load_rows(self, number: int) -> list[dict[str, object]]:
        """The scored rows of a part; none where it is not finished."""
        return [] if self.count_rows(number) is None else to_rows(load_table(self.part_path(number)))

    def load_failures(self, parts: int) -> list[dict[str, str]]:
        """The failures of all parts, in the order of the inputs."""
        paths = (self.failures_path(number) for number in range(parts))
        rows = (row for path in paths if path.exists() for row in to_rows(load_table(path)))
        return [{name: str(value) for name, value in row.items()} for row in rows]

    def save_manifest(self, manifest: Mapping[str, object], *, complete: bool) -> None:
        """Writes the manifest, in place of an older one when it is whole."""
        save_manifest({"complete": complete, _RUN: self.run, **manifest}, self.path)

    def finish(self, manifest: Mapping[str, object]) -> None:
        """Declares the run complete."""
        shutil.rmtree(self.path / _ATTEMPTS, ignore_errors=True)
        self.save_manifest(manifest, complete=True)

    def clear(self) -> None:
        """Deletes what a run has written, and nothing else; the manifest last."""
        for path in self.path.glob("part-*.parquet"):
            path.unlink()
        for name in (FAILURES_FOLDER, _ATTEMPTS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / FOLDER_MANIFEST).unlink()

    def _write(self, path: Path, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        path.parent.mkdir(exist_ok=True)
        metadata = {**(table.schema.metadata or {}), _RUN.encode(): self.run.encode()}
        with replace_when_done(path) as target:
            pq.write_table(table.replace_schema_metadata(metadata), target)


def lock_score_folder(path: Path) -> RunLock:
    """Makes the folder of a run, and keeps other runs off until the lock is closed; workers take none.

    Args:
        path: the folder; its parent must exist.

    Raises:
        OutputError: no folder can be made there.
        TableError: another run is writing it.
    """
    check_parent(path)
    make_folder(path)
    then = "wait for it, or name another --out"
    return RunLock(OpenFolder(path), TableError(describe(f"Another run is writing {path}", then=then)))


def open_score_folder(
    path: Path, record: Mapping[str, object], labels: Sequence[str], *, resume: bool, overwrite: bool
) -> ScoreFolder:
    """Makes the folder of a run, or opens it again.

    Args:
        path: the folder; its parent must exist.
        record: what the scores depend on, and the list of images by its hash; plain values.
        labels: findings.
        resume: resume from what is there, if it is of the same run.
        overwrite: delete what a run has left there and start anew.

    Raises:
        OutputError: no folder can be made there; it holds a run and neither is asked for, or other files.
        TableError: it holds another run.
    """
    record = json.loads(json.dumps(record))
    folder = ScoreFolder(path, hash_texts([json.dumps(record, sort_keys=True)]), tuple(labels))
    check_parent(path)
    make_folder(path)
    found = _load_manifest(path)
    if found is None:
        if others := sorted(entry.name for entry in path.iterdir()):
            raise foreign_files(others)
    elif overwrite or [entry.name for entry in path.iterdir()] == [FOLDER_MANIFEST]:
        folder.clear()  # a run that could not even begin has nothing to lose
    elif resume:
        check_same({key: found.get(key) for key in record}, record, path)
    else:
        raise existing_output(path, resumable=True) if found.get("complete") else waiting_run(path, "its parts")
    folder.save_manifest(record, complete=False)
    return folder


def find_score_folder(path: Path, run: str, labels: Sequence[str], mark: str = "") -> ScoreFolder:
    """Opens the folder of a run as a worker, which may look from another machine; what it takes is `ScoreFolder`'s.

    Raises:
        TableError: the folder is not to be seen from here, or is another run's.
    """
    found = _load_manifest(path)
    if found is None or found.get(_RUN) != run:
        raise TableError(
            describe(
                f"A worker does not see the run's folder {path}",
                got="no folder of a run" if found is None else "another run's folder",
                then="name an output on storage that all machines share under one path",
            )
        )
    return ScoreFolder(path, run, tuple(labels), mark)


def _load_manifest(path: Path) -> dict[str, object] | None:
    return load_manifest(path) if (path / FOLDER_MANIFEST).exists() else None
