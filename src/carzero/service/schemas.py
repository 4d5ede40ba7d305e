"""What is sent and answered: the contract of the service, from which its OpenAPI is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from carzero.records import Pool, ScoreKind

Label = Annotated[str, Field(min_length=1, max_length=300)]
Sentence = Annotated[str, Field(min_length=1, max_length=1000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Sent(BaseModel):
    """What a caller sends: no field but those described."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Kind of problem: a URN.", examples=["urn:carzero:problem:too-large"])
    title: str = Field(description="The kind in words.")
    status: int = Field(description="HTTP status.", ge=400, le=599)
    detail: str = Field(description="What is wrong in this case.")
    next_step: str = Field(description="What the caller can do.")
    request_id: str | None = Field(None, description="Names the request in the service's log.")


# Asked


class PromptRecord(_Sent):
    """The sentences that ask for a label, and those that deny it."""

    positive: list[Sentence] = Field(min_length=1)
    negative: list[Sentence] = Field(default_factory=list)


class Asked(_Sent):
    """What is asked of images: either `labels`, `prompts` or `prompt_set`."""

    labels: list[Label] | None = Field(
        None, min_length=1, description="Findings; each is put into `template`.", examples=[["pleural effusion"]]
    )
    prompts: dict[Label, Sentence | list[Sentence] | PromptRecord] | None = Field(
        None,
        min_length=1,
        description="Labels and the sentences that ask for each.",
        examples=[{"effusion": ["There is pleural effusion"]}],
    )
    prompt_set: str | None = Field(
        None, max_length=100, description="A set of the prompt library, NAME or NAME:VARIANT.", examples=["chexpert"]
    )
    template: Sentence | None = Field(
        None, description="The sentence that asks for a label; {label} in it. By default the weights' own."
    )
    pool: Pool | None = Field(
        None, description="How several prompts of a label become one score; by default as the weights want it."
    )
    score_kind: ScoreKind | None = Field(
        None,
        description="`logit_difference`: the logit less that of the prompts which deny the label; by default as the "
        "weights want it.",
    )
    force: bool = Field(False, description="Also score readable images that are not chest radiographs.")
    model: str | None = Field(None, max_length=200, description="Weights by name; by default the first of /v1/models.")


class EncodedImage(_Sent):
    """An image in the request."""

    name: str = Field("", max_length=300, description="Comes back with the scores.")
    b64: str = Field(min_length=1, description="The file's bytes in base64.")


class ImageReference(_Sent):
    """An image in a PACS that the service may fetch from."""

    name: str = Field("", max_length=300, description="Comes back with the scores.")
    dicomweb: str = Field(
        max_length=1000,
        description="WADO-RS address of the instance.",
        examples=["https://pacs/dicom-web/studies/1.2/series/1.2.3/instances/1.2.3.4"],
    )


class Instances(_Sent):
    """Images in a JSON request."""

    instances: list[EncodedImage | ImageReference] = Field(min_length=1)


class AskedMaps(Asked):
    """What is asked of images, and how maps come back."""

    format: Literal["arrays", "png", "float32"] = Field(
        "arrays",
        description="`arrays`: the model's own cells and the way to the image's pixels; `png`: 16-bit grey in the "
        "image's pixels; `float32`: values in the image's pixels.",
    )
    box_share: float = Field(0.5, gt=0, le=1, description="The box's threshold as a share of the map's range.")


class PredictRequest(Asked, Instances):
    """Images and words, as JSON."""


class GroundRequest(AskedMaps, Instances):
    """Images and words, as JSON, and how maps come back."""


class PredictForm(Asked):
    """Images as files and words, as a form; `prompts` is JSON text, `labels` is repeated."""

    images: list[bytes] = Field(min_length=1, description="Files: DICOM, PNG, JPEG, TIFF, BMP or JPEG 2000.")


class GroundForm(AskedMaps):
    """Images as files and words, as a form, and how maps come back."""

    images: list[bytes] = Field(min_length=1, description="Files: DICOM, PNG, JPEG, TIFF, BMP or JPEG 2000.")


class LintRequest(_Sent):
    """Labels to look at before they are asked."""

    labels: list[Annotated[str, Field(max_length=300)]] = Field(max_length=256, examples=[["pneumonia", "no edema"]])
    template: Sentence | None = Field(
        None, description="The sentence that asks for a label; {label} in it. By default the weights' own."
    )
    model: str | None = Field(None, max_length=200, description="Weights by name; by default the first of /v1/models.")


# Answered


class Score(BaseModel):
    """The score of a label."""

    label: str
    prompt: str = Field(description="The (first) sentence that asked for it.")
    logit: Finite = Field(
        description="Raw score, of the manifest's `score_kind`; compare it between images, never between labels."
    )
    probability: Finite | None = Field(description="Calibrated; null where no calibration fits what was asked.")
    unfamiliar: bool | None = Field(description="Whether no training sentence speaks of it; null: not known.")


class ScoredAnswer(BaseModel):
    """An image with scores."""

    name: str
    view: str = Field(description="PA, AP, LATERAL or empty.")
    encoding: str = Field(description="How the file held the pixels.", examples=["DICOM JPEG 2000 12-bit"])
    scores: list[Score]
    remarks: list[str] = Field(description="Doubts about the image.")


class FailedAnswer(BaseModel):
    """An image without scores, and why."""

    name: str
    error: Problem


class PredictAnswer(BaseModel):
    """Scores of images, in the order in which they were sent."""

    model: str
    labels: list[str]
    images: list[ScoredAnswer | FailedAnswer]
    manifest: dict[str, JsonValue] = Field(description="Where the scores come from, as beside a score table.")


class Peak(BaseModel):
    """The centre of a map's highest cell, in the image's pixels."""

    x: Finite
    y: Finite
    inside: bool = Field(description="Whether it lies in the image, and not in the padding around it.")
    value: Finite = Field(description="Of the cell.")


class Box(BaseModel):
    """Around the peak's region, in the image's pixels, edges at whole numbers."""

    xmin: Finite
    ymin: Finite
    xmax: Finite
    ymax: Finite


class Cell(BaseModel):
    """Size of one of the model's cells, in the image's pixels."""

    width: Finite
    height: Finite


class CellMap(BaseModel):
    """The model's own cells: (column, row), edges at whole numbers, lies at `affine` * (column, row, 1)."""

    rows: int
    columns: int
    values: list[list[Finite]]
    affine: list[list[Finite]]


class PngMap(BaseModel):
    """A map in the image's pixels as 16-bit grey: 0 is unseen, else low + (level - 1) / 65534 * (high - low)."""

    rows: int
    columns: int
    png: str = Field(description="Base64.")
    low: Finite
    high: Finite


class FloatMap(BaseModel):
    """A map in the image's pixels: float32, little-endian, row after row; NaN is unseen."""

    rows: int
    columns: int
    float32: str = Field(description="Base64.")


class Finding(BaseModel):
    """Where the model looks for a label."""

    label: str
    prompt: str
    logit: Finite
    score: Finite = Field(description="The same.")
    probability: Finite | None = Field(
        description="Calibrated, as in predict; a map without a fixed scale is drawn as strongly. Null: not known."
    )
    peak: Peak
    box: Box | None = Field(description="Null for an even map, or one that stays low.")
    cell: Cell
    scale: tuple[Finite, Finite] = Field(description="Values over which the map is to be drawn.")
    map: CellMap | PngMap | FloatMap


class GroundedAnswer(BaseModel):
    """An image with maps."""

    name: str
    view: str
    width: int
    height: int
    findings: list[Finding]
    remarks: list[str]


class GroundAnswer(BaseModel):
    """Maps of images, in the order in which they were sent."""

    model: str
    labels: list[str]
    images: list[GroundedAnswer | FailedAnswer]
    manifest: dict[str, JsonValue]


class ImageWindow(BaseModel):
    """A window over levels: brightness is (level - centre) / width + 0.5, cut to 0..1."""

    centre: Finite
    width: Finite
    name: str = ""


class ImageFacts(BaseModel):
    """The header `CARZero-Image` of /v1/pixels, as JSON in ASCII."""

    rows: int
    columns: int
    largest: int = Field(description="Level of full scale.")
    window: ImageWindow = Field(description="To show first.")
    presets: list[ImageWindow]
    slope: Finite = Field(description="The file's unit per level; negative for MONOCHROME1.")
    intercept: Finite = Field(description="The file's unit at level 0.")
    photometric: str
    encoding: str
    view: str
    remarks: list[str]


class Remark(BaseModel):
    """What the linter says."""

    code: str = Field(examples=["negated-label"])
    severity: Literal["error", "warning", "note"]
    message: str


class LintedLabel(BaseModel):
    """What is to be known of a label before it is asked."""

    label: str
    prompt: str = Field(description="The sentence that goes to the text tower.")
    negative: str | None = Field(description="The sentence that it is scored against; null where there is none.")
    remarks: list[Remark]
    unfamiliar: bool | None


class LintAnswer(BaseModel):
    """What is to be known of labels; `remarks` are about all of them together."""

    labels: list[LintedLabel]
    remarks: list[Remark]


class FindingCode(BaseModel):
    """A code in a terminology."""

    scheme: str
    value: str


class Suggestion(BaseModel):
    """A finding of the prompt library."""

    label: str
    matched: str = Field(description="The name that matched: the label or a synonym.")
    synonyms: list[str]
    code: FindingCode | None
    familiar: bool | None = Field(description="Whether training sentences speak of it; null: not known.")


class SuggestAnswer(BaseModel):
    """Findings that begin with what was typed come first."""

    suggestions: list[Suggestion]


class ModelStyle(BaseModel):
    """How weights are asked where a request leaves it to them."""

    template: str = Field(description="The sentence that asks for a label.")
    negative: str = Field(description="The sentence that denies it, for score_kind=logit_difference.")
    pool: Pool
    score_kind: ScoreKind
    linted: bool = Field(description="Whether the linter knows what these weights make of words.")


class Model(BaseModel):
    """A set of weights."""

    name: str
    title: str
    family: str = Field(description="Kind of model.", examples=["CARZero", "CheXzero"])
    engine: str = Field(description="What computes it.", examples=["torch", "openvino"])
    alignment: str | None = Field(description="How CARZero's models compare image and text; null: another family's.")
    style: ModelStyle
    map_kind: str | None = Field(description="What the cells of its maps are; null: it has no maps, only scores.")
    map_scale: tuple[Finite, Finite] | None = Field(description="Scale of every map; null: each has its own.")
    calibrated: bool
    demo: bool
    weights_sha256: str
    image_size: int = Field(description="Side of the square that the model sees, in px.")
    research_use: str


class RequestLimits(BaseModel):
    """What one request may hold."""

    images: int
    prompts: int
    maps: int = Field(description="Maps in an image's pixels; those of cells have no limit.")
    body_bytes: int
    seconds: float


class ModelsAnswer(BaseModel):
    """What the service scores with."""

    models: list[Model]
    limits: RequestLimits
    version: str


class State(BaseModel):
    """Whether the service lives or is ready."""

    status: Literal["ok", "ready"]
    version: str
