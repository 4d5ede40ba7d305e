"""Options that verbs share, each declared once, and how their values are read.

The choices stand here as text, as loading the library's own lists would load numpy for every help page;
tests/cli/test_options.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from carzero.core.documents import parse_yaml
from carzero.errors import ConfigurationError, describe, refuse_broken

if TYPE_CHECKING:
    from carzero.prompts import PromptSet
    from carzero.prompts.style import PromptStyle

Number = TypeVar("Number", int, float)


def complete_weights(incomplete: str) -> list[str]:
    """The demo, and folders of weights or training runs; where there are none the shell completes files by itself."""
    folders = [name for name in sorted(glob(f"{escape(incomplete)}*")) if _holds_weights(Path(name))]  # noqa: PTH207
    return [*(["demo"] if "demo".startswith(incomplete) else []), *folders]


def complete_prompts(incomplete: str) -> list[str]:
    """Sets of the library; where there are none the shell completes files by itself."""
    from carzero.prompts import list_prompt_sets

    return [record.name for record in list_prompt_sets() if record.name.startswith(incomplete)]


def _holds_weights(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "weights/config.json"))


# Images and what is asked of them

Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE_OR_FOLDER_OR_CSV...",
        help="Images (PNG, JPEG, TIFF, DICOM), folders, or tables with a column `path`.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", "-l", help='Findings, separated by commas: --labels pneumonia,"pleural effusion".'),
]
SentencesOrName = Annotated[
    list[str] | None,
    typer.Option(
        "--prompts",
        "-p",
        autocompletion=complete_prompts,
        help='A sentence ("There is pleural effusion"), several by repeating the option; or a prompt file or a set of '
        "the library, as in predict.",
    ),
]
Template = Annotated[str, typer.Option(help="Sentence that asks about a label.")]
WeightsTemplate = Annotated[
    str | None,
    typer.Option(help='Sentence that asks about a label; by default that of the weights: "There is {label}".'),
]
PromptName = Annotated[
    str,
    typer.Argument(
        metavar="NAME_OR_FILE",
        help="A set of the library, NAME or NAME:VARIANT, or a file.",
        autocompletion=complete_prompts,
    ),
]
VariantName = Literal["paper", "pairs", "synonyms"]
Variant = Annotated[VariantName | None, typer.Option(help="Wording of a library set.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Also score readable images that are not chest radiographs.")]

# Weights, and how they are computed

WEIGHTS_HELP = '"demo", a folder of weights or of a training run, or a hub id.'
Weights = Annotated[str, typer.Option("--weights", "-w", help=WEIGHTS_HELP, autocompletion=complete_weights)]
WeightsList = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        "-w",
        autocompletion=complete_weights,
        help=f"{WEIGHTS_HELP[:-1]}; several, by repeating the option, are compared with the first.",
        show_default="demo",
    ),
]
ComparedWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        "-w",
        autocompletion=complete_weights,
        help=f"With --images, twice or more: {WEIGHTS_HELP[:-1]}; all are compared with the first.",
    ),
]
PoolName = Literal["mean", "max", "text"]
Pool = Annotated[
    PoolName | None,
    typer.Option(
        help="How several prompts of a label are combined: mean or max of their scores; or text, the mean of their "
        "vectors, for weights of CLIP's kind. By default as the weights expect it: mean for CARZero's."
    ),
]
ScoreName = Literal["logit", "logit_difference"]
Score = Annotated[
    ScoreName | None,
    typer.Option(
        help="logit: that of the sentence that asserts the finding; logit_difference: the same minus that of the "
        "sentence that denies it. By default as the weights expect it: logit, except for CheXzero's."
    ),
]
Normal = Annotated[
    Literal["max", "mean"] | None,
    typer.Option(
        help="Also score how normal an image is: minus the largest of its standardised finding scores, or minus "
        "their mean."
    ),
]
NormalFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="SCORES",
        help="With --normal: score table of other images by which scores are standardised, no truth needed; by default "
        "those of this run.",
    ),
]
BoxShare = Annotated[float, typer.Option(help="The box's threshold as a share of the map's range.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in one pass; does not change results.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")]
DtypeName = Literal["auto", "float32", "bfloat16", "float16", "int8"]
Dtype = Annotated[
    DtypeName | None,
    typer.Option(
        metavar="DTYPE",
        help="Precision: float32, bfloat16, float16, int8 (exported weights only), or auto: bfloat16 where the machine "
        "has it in hardware and the image tower is a transformer, else float32. By default float32, the same scores on "
        "every machine; exported weights have their own.",
    ),
]

CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration", help="A file of `carzero calibrate fit`: adds probabilities, and says where they come from."
    ),
]
OwnCalibration = Annotated[
    bool, typer.Option("--probabilities", help="Add probabilities, by the calibration that comes with the weights.")
]

# Runs and their output

Resume = Annotated[
    bool, typer.Option("--resume", help="Resume an interrupted run with the same output, if there is one.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output of an earlier run.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Processes; by default one per core.", show_default=False)
]

# Scores and truth

Scores = Annotated[Path, typer.Argument(metavar="SCORES", help="A score table of `carzero predict`.")]
_TRUTH = typer.Option(help="Table with a key column and findings: 1, 0, -1 (uncertain), blank (unknown).")
Truth = Annotated[Path, _TRUTH]
OptionalTruth = Annotated[Path | None, _TRUTH]
TruthId = Annotated[
    str | None, typer.Option(help="Column of the truth with the image ids; image_id and other common names are found.")
]
OnlyLabels = Annotated[list[str] | None, typer.Option("--labels", "-l", help="Only these findings: a,b.")]
Patient = Annotated[
    str | None, typer.Option(help="Column with patient ids; patient_id is found. The bootstrap resamples patients.")
]
UncertainAs = Literal["drop", "positive", "negative"]
Uncertain = Annotated[UncertainAs, typer.Option(help="What -1 counts as.")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Continue with the images that all tables have.")]
AmongAbnormal = Annotated[
    bool, typer.Option("--among-abnormal", help="Also evaluate among images with any finding: group abnormal=yes.")
]
Baseline = Annotated[
    bool,
    typer.Option(
        "--baseline", help="Also the AUROC of a regression on file and grey-level statistics; reads the images."
    ),
]
Rounds = Annotated[int, typer.Option("--bootstrap", min=0, help="Bootstrap rounds; 0 for no bootstrap intervals.")]
Confidence = Annotated[float, typer.Option(help="Confidence level of the intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]
DatasetName = Annotated[str, typer.Option(help="Name of the set in the table; the truth's file name if not given.")]
ResultOut = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for metrics.csv, .md and .json, or one such file.")
]

# Tables of the user

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", "-c", help="Column under another name in the table, our name first: --column text=report."
    ),
]


def json_option(help_text: str) -> object:
    """The option `--json`; the help says what is printed."""
    return typer.Option("--json", help=help_text)


def refuse_given(context: typer.Context, reason: str, *names: str) -> None:
    """Refuses options that do not go with what else is asked for; leaving them aside would hide a mistake.

    Args:
        context: of the verb.
        reason: as a sentence that begins with the option.
        names: of the verb's parameters, of which none may be given.

    Raises:
        typer.BadParameter: one is on the command line; it is named.
    """
    spoken = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    sources = {name: context.get_parameter_source(name) for name in names}
    if given := [spoken[name] for name, source in sources.items() if source and source.name != "DEFAULT"]:
        raise typer.BadParameter(reason, param_hint=", ".join(given))


def split_names(given: Iterable[str] | None) -> list[str] | None:
    """Names of an option that takes several, separated by commas, and may be repeated; None stays None."""
    if given is None:
        return None
    return [name.strip() for group in given for name in group.split(",") if name.strip()]


def split_numbers(given: str, kind: Callable[[str], Number], *, hint: str) -> list[Number]:
    """Numbers separated by commas.

    Raises:
        typer.BadParameter: one is not a number.
    """
    try:
        return [kind(number) for number in given.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"expected numbers separated by commas, got {given}.", param_hint=hint) from error


def read_prompts(
    labels: Sequence[str] | None,
    prompts: Sequence[str] | None,
    template: str | None,
    style: PromptStyle,
    score: ScoreName | None = None,
) -> PromptSet:
    """What is asked: labels put into the template; sentences, each its own label; or a file or a set of the library.

    Several prompts are sentences; so is one of several words, unless it is a file or has a prompt file's suffix. What
    is not given is as the weights, whose `style` it is, want it.
    """
    from carzero.prompts import resolve_prompts

    if prompts is None:
        return style.ask(split_names(labels), None, template, score)
    is_sentence = " " in prompts[0].strip() and not _is_file(prompts[0])
    if len(prompts) > 1 or is_sentence:
        return style.ask(split_names(labels), {each: [each] for each in prompts}, template, score)
    return style.ask(split_names(labels), resolve_prompts(prompts[0], cleaning=style.cleaning), template, score)


def _is_file(prompt: str) -> bool:
    return Path(prompt).suffix.lower() in (".json", ".yaml", ".yml") or Path(prompt).exists()


def parse_changes(changes: Sequence[str]) -> dict[str, object]:
    """`["optimiser.lr=1e-4"]` as `{"optimiser.lr": 0.0001}`.

    Raises:
        ConfigurationError: a change has no "=", or no value that YAML can read.
    """
    with refuse_broken("A change has no value that YAML can read", error=ConfigurationError, expected="field=value"):
        return {name: _number(parse_yaml(value)) for name, value in map(_split, changes)}


def parse_columns(columns: Sequence[str] | None) -> dict[str, str]:
    """`["text=report"]` as `{"text": "report"}`: a column's name in our schema, and in the user's file.

    Raises:
        typer.BadParameter: another form.
    """
    pairs = {}
    for column in columns or ():
        name, separator, source = column.partition("=")
        if not separator or not name or not source:
            raise typer.BadParameter(f"expected OURS=YOURS such as text=report, got {column!r}.", param_hint="--column")
        pairs[name] = source
    return pairs


def _number(value: object) -> object:
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
