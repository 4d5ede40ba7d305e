"""`carzero convert`, the real command: exit codes, what goes to stdout, what goes to stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from carzero.cli.main import run
from tests.support.checkpoint_files import save_released, tiny_state_dict, tiny_vocabulary, write_archive
from tests.support.commands import carzero


def carzero_in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command's own entry point in this process, which spares the imports: exit code, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["carzero", *map(str, arguments)])
        patch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as done:
            run()
    return int(done.value.code or 0), *capsys.readouterr()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_released(tmp_path_factory.mktemp("released") / "tiny.ckpt", tiny_state_dict())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vocabulary(tmp_path_factory.mktemp("tokenizer"))


def test_a_table_for_people(
    checkpoint: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = carzero_in_process(capsys, "convert", checkpoint, tmp_path / "out", "--tokenizer", tokenizer)
    assert code == 0
    assert "dropped: BERT's pooler is never read" in out
    assert "4  fusion_module.decoder.layers.N.self_attn.in_proj_weight" in out
    assert err.splitlines() == [f"Wrote {tmp_path / 'out'}; every tensor is listed in its conversion.json."]


def test_the_tokenizer_is_asked_for(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = carzero_in_process(capsys, "convert", checkpoint, tmp_path / "out")
    assert code == 2
    assert not out
    assert "--tokenizer" in err


def test_json_for_programs_and_warnings_on_stderr(tokenizer: Path, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in tiny_state_dict().items() if name != "img_encoder.model.norm.weight"}
    path = save_released(tmp_path / "x.ckpt", tensors)
    done = carzero("convert", path, tmp_path / "out", "--tokenizer", tokenizer, "--lenient", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["missing"] == ["vision_model.layernorm.weight"]
    assert report["out"] == str(tmp_path / "out")
    assert len(report["records"]) == len(tensors)
    assert "warning: missing from the checkpoint and now random, so scores mean nothing: vision_model.l" in done.stderr


def test_a_hostile_file_ends_with_2_and_one_message(tokenizer: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "executed"
    command = f"touch {sentinel}".encode()
    hostile = b"\x80\x02cos\nsystem\nX" + len(command).to_bytes(4, "little") + command + b"\x85R."
    done = carzero("convert", write_archive(tmp_path / "x.ckpt", hostile), tmp_path / "out", "--tokenizer", tokenizer)
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("error: The checkpoint's pickle asks for os.system; nothing in it was run")
    assert len(done.stderr.splitlines()) == 1
    assert not sentinel.exists()
    assert not (tmp_path / "out").exists()
