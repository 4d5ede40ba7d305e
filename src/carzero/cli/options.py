"""Options that several verbs take apart alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carzero.errors import ConfigurationError, describe

__all__ = ["parse_changes", "parse_columns"]


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """`["optimiser.lr=1e-4"]` as `{"optimiser.lr": 0.0001}`.

    Raises:
        ConfigurationError: a change has no "=", or no value that YAML can read.
    """
    import yaml

    try:
        return {name: _number(yaml.safe_load(value)) for name, value in map(_split, changes)}
    except yaml.YAMLError as error:
        raise ConfigurationError(
            describe("A change has no value that YAML can read", got=str(error).splitlines()[0], expected="field=value")
        ) from error


def parse_columns(columns: Sequence[str]) -> dict[str, str]:
    """`["text=report"]` as `{"text": "report"}`: a column's name in our schema, and in the user's file.

    Raises:
        typer.BadParameter: another form.
    """
    import typer

    pairs = {}
    for column in columns:
        name, separator, source = column.partition("=")
        if not separator or not name or not source:
            raise typer.BadParameter(f"expected OURS=YOURS such as text=report, got {column!r}.", param_hint="--column")
        pairs[name] = source
    return pairs


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a text, because it has no dot."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _split(change: str) -> tuple[str, str]:
    name, separator, value = change.partition("=")
    if not separator or not name:
        raise ConfigurationError(describe("This option has no value", got=change, expected="name=value"))
    return name, value
