"""Weights on the Hugging Face hub: the files that belong to them, a model card, and nothing else."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carzero.core.hub import find_hub_problem
from carzero.core.outputs import NewFolder
from carzero.errors import WeightsError, describe, first_line
from carzero.weights.model_card import Figure, check_licence, write_hub_card
from carzero.weights.source import WeightsSource
from carzero.weights.weight_files import list_weight_files

CARD = "README.md"

# What is uploaded beside the weights' own files. Images, reports, tables, logs and checkpoints have other names.
_BELONGS = re.compile(
    r"(generation_|processor_|preprocessor_|tokenizer_)?config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|tokenizer\.json|vocab\.(txt|json)|merges\.txt|spiece\.model|model\.safetensors\.index\.json|training_words\.json"
)
_REPOSITORY = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")


@dataclass(frozen=True, slots=True)
class Publication:
    """Weights that are to be published.

    Attributes:
        source: the weights.
        repository: "owner/name".
        files: of the weights, by name; what is uploaded beside the card.
        left_out: names in their folder that are not uploaded.
        card: text of README.md.
    """

    source: WeightsSource
    repository: str
    files: dict[str, Path]
    left_out: list[str]
    card: str

    def write(self, folder: Path) -> None:
        """Writes exactly what would be uploaded into a folder: a new or an empty one.

        Raises:
            OutputError: the folder cannot be written, or holds something.
        """
        new = NewFolder(folder.resolve(), False, lambda name: False, "copy", "as much as the weights take")
        new.check()
        with new.fill() as unfinished:
            self._fill(unfinished)

    def upload(self, *, private: bool) -> str:
        """Uploads it in one commit; a repository that is not there is made.

        Args:
            private: whether a repository that is made is seen by its owner alone.

        Returns:
            the address of the commit.

        Raises:
            WeightsError: nobody is logged in, or the hub cannot be reached or refuses it; nothing was changed there, or
                an empty repository was made.
        """
        from huggingface_hub import HfApi, get_token

        if get_token() is None:
            raise self._refused("nobody is logged in", "log in by `hf auth login`, or set HF_TOKEN")
        if (problem := find_hub_problem()) is not None:
            raise self._refused(problem, "check the network; --dry-run FOLDER writes what would be uploaded")
        with tempfile.TemporaryDirectory() as made:
            self._fill(Path(made))
            try:
                api = HfApi()
                api.create_repo(self.repository, private=private or None, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=self.repository,
                    folder_path=made,
                    commit_message=f"CARZero weights {self.source.sha256[:12]}",
                )
            except Exception as error:  # the hub raises many kinds; all mean the same to the user
                raise self._refused(f"the hub says: {first_line(error)}", "check name, rights and network") from error
        return str(getattr(commit, "commit_url", commit))

    def _fill(self, folder: Path) -> None:
        for name, path in self.files.items():
            shutil.copyfile(path, folder / name)
        (folder / CARD).write_text(self.card, encoding="utf-8")

    def _refused(self, why: str, then: str) -> WeightsError:
        return WeightsError(describe(f"The weights were not published: {why}", got=self.repository, then=then))


def prepare_publication(
    folder: str | Path, repository: str, *, licence: str, data: str = "", figures: Sequence[Figure] = ()
) -> Publication:
    """Collects what belongs to weights, and writes their card.

    Args:
        folder: a folder of weights, or of a training run.
        repository: "owner/name" on the hub.
        licence: an identifier of the hub, such as "apache-2.0".
        data: what the weights were trained on, in a sentence or two.
        figures: what was measured with them, see `load_figures`.

    Raises:
        WeightsError: no whole weights of a torch model there, no name of a repository, or no licence.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise WeightsError(describe("This is not a name on the hub", got=repository, expected="OWNER/NAME"))
    given = Path(folder)
    source = WeightsSource(given / "weights" if (given / "weights" / "config.json").is_file() else given)
    if source.kind != "torch":
        raise WeightsError(
            describe(
                "Exported graphs are not published",
                got=str(folder),
                expected="the weights that were exported",
                then="publish those; whoever needs graphs exports them for their own machine",
            )
        )
    card = write_hub_card(source, repository, licence=check_licence(licence), data=data, figures=figures)
    weights = {path.name: path for path in list_weight_files(source.folder)}
    found = {path.name: path for path in sorted(source.folder.iterdir()) if path.is_file()}
    files = weights | {name: path for name, path in found.items() if _BELONGS.fullmatch(name)}
    present = {path.name for path in source.folder.iterdir()}
    return Publication(source, repository, files, sorted(present - files.keys() - {CARD}), card)
