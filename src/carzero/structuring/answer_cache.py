"""Answers of language models kept in one SQLite file, so that no question is ever paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from carzero.errors import TableError, describe, refuse_broken

_APPLICATION_ID = 0x435A4C4D  # "CZLM"; SQLite keeps it in the file's header, so another program's file is known
_VERSION = 1
_BUSY_S = 60.0
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    content TEXT NOT NULL,
    fault TEXT NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a model answered, before anything is believed of it.

    Attributes:
        content: the message's text; empty where `fault` says that there is none to read.
        fault: "" or why the text cannot be an answer: "too_large", "cut_off", "refused", "empty".
        prompt_tokens: as the server stated it; None where it did not.
        completion_tokens: likewise.
    """

    content: str
    fault: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def request_key(request: Mapping[str, object]) -> str:
    """The key of a question: the SHA-256 of all that the answer depends on.

    Args:
        request: model, messages (instruction and report), schema and options such as temperature and seed. Where the
            server stands and how the request travels there are no part of it; nor is an API key.
    """
    plain = json.dumps(request, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode("ascii")).hexdigest()


class AnswerCache:
    """A file of answers by `request_key`; several processes may use it at once.

    Only answers that a server gave are kept, whether or not they turn out valid; failures of server or connection are
    not, so that a later run asks again. An answer is safe against a kill of the process once `save` returns; against
    a loss of power the last ones may not be, but what is older is.

    Args:
        path: the file; made, readable by its owner alone, where there is none. It quotes from the reports.

    Raises:
        TableError: the file is not such a cache, is damaged, or cannot be opened or made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._named_errors():
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def load(self, key: str) -> KeptAnswer | None:
        """The answer kept under a key, or None."""
        query = "SELECT content, fault, prompt_tokens, completion_tokens FROM answers WHERE key = ?"
        with self._named_errors():
            row = self._connection.execute(query, (key,)).fetchone()
            return None if row is None else _to_answer(*row)

    def save(self, key: str, model: str, answer: KeptAnswer) -> None:
        """Keeps an answer; one that another process has kept under the key meanwhile stays."""
        values = (key, model, answer.content, answer.fault, answer.prompt_tokens, answer.completion_tokens)
        with self._named_errors():
            self._connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", values)

    def __len__(self) -> int:
        with self._named_errors():
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Closes the file; SQLite then folds its write-ahead log into it."""
        self._connection.close()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        execute = self._connection.execute
        tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        mark = execute("PRAGMA application_id").fetchone()[0]
        version = execute("PRAGMA user_version").fetchone()[0]
        if (tables or mark) and (mark, version) != (_APPLICATION_ID, _VERSION):
            raise TableError(
                describe(
                    f"{self.path} belongs to another program, or to another version of CARZero",
                    expected="a cache of answers that `carzero reports align` has made",
                    then="name another file with --cache",
                )
            )
        self._turn_on_wal()
        execute("PRAGMA synchronous = NORMAL")
        if (found := execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        # One transaction, so that a second process sees either nothing or a whole cache.
        execute("BEGIN IMMEDIATE")
        execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        execute(f"PRAGMA user_version = {_VERSION}")
        execute(_TABLE)
        execute("COMMIT")

    def _turn_on_wal(self) -> None:
        """SQLite waits for locks everywhere but here, where another process that opens the file holds one briefly."""
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def _named_errors(self) -> AbstractContextManager[None]:
        return refuse_broken(
            f"The cache {self.path} cannot be used",
            error=TableError,
            expected="a SQLite file that this command has made",
            then="delete it, which forgets its answers, or name another file with --cache",
        )


def _to_answer(content: object, fault: object, *tokens: object) -> KeptAnswer:
    """A row of the file, in which SQLite lets any column hold anything."""
    if not isinstance(content, str) or not isinstance(fault, str):
        raise ValueError("an answer that is not text")
    return KeptAnswer(content, fault, *(count if isinstance(count, int) else None for count in tokens))
