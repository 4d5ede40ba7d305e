"""Images as other models' weights want them: the same pixel values as transformers' own processors give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from carzero.images import PixelTransform, filters, load_image
from carzero.images.filters import RESAMPLING_NUMBERS, stretch_cut, stretch_round
from carzero.images.placement import letterbox_cut
from carzero.processing import CARZeroImageProcessor
from carzero.records import Radiograph
from tests.support.released import FIXTURES

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def processor(transform: PixelTransform) -> CARZeroImageProcessor:
    return CARZeroImageProcessor(**transform.to_dict())


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("sizes", [(64, 64), (80, 64), (64, 81), (33, 30)])
@pytest.mark.parametrize("squashed", [True, False])
@pytest.mark.parametrize("picture", ["img0.png", "img1.png", "img2.png", (53, 200), (200, 53), (70, 64)])
def test_equal_to_transformers(
    picture: str | tuple[int, int], squashed: bool, sizes: tuple[int, int], resample: int
) -> None:
    if isinstance(picture, str):
        with Image.open(FIXTURES / "images" / picture) as opened:
            levels = np.asarray(opened.convert("L"))
    else:
        levels = np.random.default_rng(0).integers(0, 256, picture, dtype=np.uint8)
    resize_px, crop_px = sizes
    kind = SiglipImageProcessorPil if squashed else CLIPImageProcessorPil
    theirs = kind(
        size={"height": resize_px, "width": resize_px} if squashed else {"shortest_edge": resize_px},
        crop_size={"height": crop_px, "width": crop_px},
        do_center_crop=True,
        resample=resample,
        image_mean=MEAN,
        image_std=STD,
        do_convert_rgb=True,
    )
    ours = processor(
        PixelTransform(
            resize_px,
            crop_px,
            MEAN,
            STD,
            placement="squash" if squashed else "shortest_edge",
            resampling=RESAMPLING_NUMBERS[resample],
        )
    )
    expected = theirs(Image.fromarray(levels), return_tensors="np")["pixel_values"][0]
    got = ours.to_pixel_values(Radiograph(levels.astype(np.float32))).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_deeper_images_keep_their_depth() -> None:
    deep = np.linspace(0, 4095, 90 * 120).reshape(90, 120).astype(np.uint16)
    for placement in ("squash", "shortest_edge", "letterbox_cut", "pad_squash"):
        transform = PixelTransform(32, 32, placement=placement, resampling="bicubic")
        levels = transform.apply(load_image(deep, bits=12).pixels)
        whole = transform.apply(np.rint(load_image(deep, bits=12).pixels))
        assert levels.dtype == np.float32
        assert whole.dtype == np.uint8
        assert len(np.unique(levels)) > 256
        assert np.abs(levels - whole).max() <= 1  # the same picture, within one grey level
    assert PixelTransform(32, 32).apply(load_image(deep, bits=12).pixels).dtype == np.uint8  # as released


def test_a_strip_takes_no_more_memory_than_its_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    strip = np.random.default_rng(0).integers(0, 256, (20, 3000), dtype=np.uint8)
    geometry = PixelTransform(64, 64, placement="shortest_edge", resampling="bicubic").geometry(20, 3000)
    whole = geometry.apply(strip)
    monkeypatch.setattr(filters, "_MOST_PIXELS", 64)
    assert np.abs(geometry.apply(strip) - whole).max() <= 1


def test_stretches() -> None:
    levels = np.array([[10.0, 11, 60], [12, 13, 59]], np.float32)
    np.testing.assert_array_equal(stretch_cut(levels), [[0, 5, 255], [10, 15, 249]])
    np.testing.assert_array_equal(stretch_round(levels), [[0, 5, 255], [10, 15, 250]])
    deep = levels + np.float32(0.25)
    np.testing.assert_allclose(stretch_round(deep), (deep - deep.min()) * 5.1, rtol=1e-5)
    assert not stretch_round(np.full((2, 2), 7, np.float32)).any()


@pytest.mark.parametrize("side", [77, 154, 303, 581, 606, 1077, 2139])
def test_the_longer_side_of_chexzero_is_cut_too(side: int) -> None:
    assert max(letterbox_cut(side, side // 2, 320, 320).resized) == 319
    assert max(letterbox_cut(side // 2, side + 1, 320, 320).resized) == 320


def test_saved_and_read_back() -> None:
    plain = CARZeroImageProcessor()
    assert set(PixelTransform.__slots__) & set(plain.to_dict()) == {"resize_px", "crop_px", "image_mean", "image_std"}
    transform = PixelTransform(320, 320, MEAN, STD, placement="letterbox_cut", resampling="lanczos", input_px=224)
    saved = processor(transform).to_dict()
    assert PixelTransform.from_mapping(saved) == transform == processor(transform).pixels
    assert CARZeroImageProcessor.from_dict(saved).pixels == transform


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"placement": "elsewhere"}, "placement must be one of letterbox"),
        ({"resampling": "magic"}, "resampling must be one of area"),
        ({"stretch": "wide"}, "stretch must be one of none"),
        ({"image_std": (0.1, 0.2, 0.0)}, "image_std must be above 0"),
        ({"image_mean": (0.1, 0.2)}, "image_mean must be one number, or three"),
        ({"crop_px": 10**6}, "crop_px must be a whole number from 1 to 8192"),
        ({"input_px": 2.5}, "input_px must be a whole number"),
    ],
)
def test_a_transform_that_cannot_be_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(PixelTransform(), **change)
