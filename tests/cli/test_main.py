"""The frame around all verbs."""

from __future__ import annotations

import pytest
import typer

from carzero.cli import main


def test_an_interrupt_is_said_and_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()

    @app.command()
    def work() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "build_command", lambda: typer.main.get_command(app))
    monkeypatch.setattr("sys.argv", ["carzero"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 130
    assert "Interrupted." in capsys.readouterr().err


def test_an_interrupt_at_a_question_has_its_exit_code_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()

    @app.command()
    def work(licence: str = typer.Option(prompt="License")) -> None:
        raise AssertionError(licence)

    def ask(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer._click.termui.visible_prompt_func", ask)
    monkeypatch.setattr(main, "build_command", lambda: typer.main.get_command(app))
    monkeypatch.setattr("sys.argv", ["carzero"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 130
    assert len(capsys.readouterr().err.splitlines()) == 1
