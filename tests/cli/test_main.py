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
