"""Files of the Hugging Face hub: kept on this machine, or downloaded, or at once an error where there is no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carzero.errors import first_line

_PATIENCE_S = 3.0  # until the hub answers; its own client tries again for half a minute


class HubError(Exception):
    """A repository of the hub is neither kept on this machine nor can be downloaded; the caller says what it is for.

    Attributes:
        reason: one line.
        address: the page where its files can be downloaded by hand.
    """

    def __init__(self, reason: str, address: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address


def fetch_repository(name: str, patterns: Sequence[str]) -> Path:
    """Returns a folder of this machine with a hub repository's files.

    Args:
        name: "user/name".
        patterns: which files are wanted, such as "*.json".

    Raises:
        HubError: the hub cannot be reached and the files are not kept here, or it does not give them.
    """
    from huggingface_hub import constants, snapshot_download

    address = f"{constants.ENDPOINT}/{name}"
    problem = find_hub_problem()
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=problem is not None))
    except Exception as error:  # the hub raises many kinds; all mean the same to the user
        raise HubError(first_line(error) if problem is None else problem, address) from error


def find_hub_problem() -> str | None:
    """Why the hub cannot be reached, or None: any answer will do, and who has switched it off knows why."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception as error:  # as above; which ones depends on the client that the hub's library uses
        return f"{constants.ENDPOINT} cannot be reached: {first_line(error)}"
    return None
