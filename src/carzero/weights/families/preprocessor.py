"""preprocessor_config.json, as transformers' image processors write it, as a `PixelTransform`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from carzero.core.documents import parse_json_object
from carzero.errors import WeightsError, describe
from carzero.images import PixelTransform
from carzero.images.filters import RESAMPLING_NUMBERS

# What a file that leaves a field out means.
CLIP_DEFAULTS: Mapping[str, object] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}

SIGLIP_DEFAULTS: Mapping[str, object] = {
    **CLIP_DEFAULTS,
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}

_KINDS = {"clip": CLIP_DEFAULTS, "siglip": SIGLIP_DEFAULTS}  # by what the name of the processor's class begins with
_NAMES = ("image_processor_type", "feature_extractor_type")


def read_image_processor(folder: Path) -> dict[str, object]:
    """The fields of a folder's image processor; transformers 5 saves them inside processor_config.json.

    Raises:
        OSError: there is no such file.
        ValueError: another form.
    """
    path = folder / "preprocessor_config.json"
    if path.is_file():
        content: object = parse_json_object(path.read_bytes())
    else:
        content = parse_json_object((folder / "processor_config.json").read_bytes()).get("image_processor")
    if not isinstance(content, dict):
        raise ValueError("image_processor is not an object")
    return {key: value for key, value in content.items() if value is not None}


def complete(fields: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Fields with what they leave out.

    Args:
        fields: of the file.
        defaults: of the model's own processor; a file that names another processor has that one's.

    Raises:
        WeightsError: a processor that is not known, and that leaves out fields.
    """
    stated = next((str(fields[name]) for name in _NAMES if name in fields), None)
    if stated is not None:
        known = next((own for kind, own in _KINDS.items() if stated.lower().startswith(kind)), None)
        left_out = [name for name in defaults if name not in fields]
        if known is None and left_out:
            raise _unusable(f"{stated}, which leaves out {left_out[0]}", stated, "a processor of CLIP or SigLIP")
        defaults = known or defaults
    return {**defaults, **fields}


def to_transform(fields: Mapping[str, object]) -> PixelTransform:
    """The pixel transform of a preprocessor_config.json, all of whose fields are honoured.

    Raises:
        WeightsError: images are not brought to one square, or fields have another form.
    """
    if not fields["do_resize"]:
        raise _unusable("do_resize", False, "true: radiographs come in all sizes")
    size = fields["size"]
    # A lone number is the shorter side, as both processors read it; two are height and width.
    squashed = isinstance(size, list) or (isinstance(size, dict) and set(size) == {"height", "width"})
    resize_px = _side("size", size)
    if not squashed and not fields["do_center_crop"]:
        raise _unusable("do_center_crop", False, "true where the aspect ratio is kept: the model takes squares")
    crop_px = _side("crop_size", fields["crop_size"]) if fields["do_center_crop"] else resize_px
    number = fields["resample"]
    if not isinstance(number, int) or number not in RESAMPLING_NUMBERS:
        raise _unusable("resample", number, f"one of Pillow's numbers: {RESAMPLING_NUMBERS}")
    mean, std = _normalisation(fields)
    placement = "squash" if squashed else "shortest_edge"
    return PixelTransform(resize_px, crop_px, mean, std, placement=placement, resampling=RESAMPLING_NUMBERS[number])


def _side(field: str, size: object) -> int:
    named = isinstance(size, dict) and set(size) in ({"shortest_edge"}, {"height", "width"})
    sides = list(size.values()) if isinstance(size, dict) else size if isinstance(size, list) else [size]
    known = named or not isinstance(size, dict)
    if not known or len(sides) not in (1, 2) or sides[0] != sides[-1] or type(sides[0]) is not int:
        raise _unusable(field, size, 'one number, {"shortest_edge": ...}, or equal {"height": ..., "width": ...}')
    return sides[0]


def _normalisation(fields: Mapping[str, object]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation in 0-1 that do what rescaling and normalising do."""
    factor = fields["rescale_factor"] if fields["do_rescale"] else 1.0
    mean, std = (fields["image_mean"], fields["image_std"]) if fields["do_normalize"] else (0.0, 1.0)
    if not isinstance(factor, int | float) or not factor > 0:
        raise _unusable("rescale_factor", factor, "a number above 0")
    spread = 255 * float(factor)
    return tuple(each / spread for each in _channels("image_mean", mean)), tuple(
        each / spread for each in _channels("image_std", std)
    )


def _channels(field: str, value: object) -> list[float]:
    values = value if isinstance(value, list | tuple) else [value] * 3
    numbers = [float(each) for each in values if isinstance(each, int | float)]
    if len(numbers) != 3 or len(values) != 3:
        raise _unusable(field, value, "one number, or three")
    return numbers


def _unusable(field: str, got: object, expected: str) -> WeightsError:
    return WeightsError(
        describe(
            f"The preprocessor_config.json prepares images in a way that is not available: {field}",
            got=got,
            expected=expected,
            then="take the file that was saved with these weights",
        )
    )
