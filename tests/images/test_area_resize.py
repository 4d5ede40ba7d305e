"""The resize equals OpenCV's area interpolation, on every path it takes."""

import numpy as np
import pytest

from carzero.images.area_resize import resize_area

RNG = np.random.default_rng(20)


def _sizes(path: str) -> tuple[int, int, int, int]:
    """Returns (rows, columns, rows wanted, columns wanted) that make OpenCV take one of its paths."""
    rows, columns, to_rows, to_columns, down, across = (int(n) for n in RNG.integers(1, [260] * 4 + [6] * 2))
    longer = max(rows, columns)
    third, other = rows // 3 + 1, columns // 3 + 1
    return {
        "fit to 256": (4 * rows, 4 * columns + 1, max(1, rows * 256 // longer), max(1, columns * 256 // longer)),
        "whole factors": (to_rows * down, to_columns * across, to_rows, to_columns),
        "two by two": (2 * to_rows, 2 * to_columns, to_rows, to_columns),
        "many ties": (8 * third, 4 * other, 3 * third, 3 * other),  # shares in thirds of quarters: often exact halves
        "enlarge one side": (rows, columns + 1, rows + to_rows, max(1, columns // 2)),
        "enlarge": (rows, columns, rows + to_rows, columns + to_columns),
        "any": (rows, columns, to_rows, to_columns),
    }[path]


@pytest.mark.parametrize(
    "path", ["fit to 256", "whole factors", "two by two", "many ties", "enlarge one side", "enlarge", "any"]
)
def test_equals_opencv(path: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless, in the extra 'test'")
    different = total = 0
    for _ in range(25):
        rows, columns, to_rows, to_columns = _sizes(path)
        picture = RNG.integers(0, 256, (rows, columns), dtype=np.uint8)
        expected = cv2.resize(picture, (to_columns, to_rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        got = resize_area(picture, to_rows, to_columns)
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() <= 1, (rows, columns, to_rows, to_columns)
        different += np.count_nonzero(got != expected)
        total += got.size
    assert different <= 0.001 * total


def test_halves_round_as_opencv_does() -> None:
    assert resize_area(np.array([[0, 1], [0, 1]], np.uint8), 1, 1)[0, 0] == 1  # two by two: 0.5 goes up
    assert resize_area(np.array([[0, 1]], np.uint8), 1, 1)[0, 0] == 0  # any other whole factor: to the even level
    assert resize_area(np.array([[1, 2]], np.uint8), 1, 1)[0, 0] == 2


@pytest.mark.parametrize("size", [(40, 30), (20, 15), (17, 13), (80, 70), (40, 29), (13, 10)])
def test_fractional_levels_come_out_whole_and_close(size: tuple[int, int]) -> None:
    whole = RNG.integers(0, 255, (40, 30)).astype(np.float32)
    got = resize_area(whole + np.float32(0.25), *size)
    np.testing.assert_array_equal(got, np.rint(got))
    assert got.min() >= 0
    assert got.max() <= 255
    assert abs(float(got.mean()) - float(resize_area(whole, *size).mean()) - 0.25) < 0.3


def test_float_and_8_bit_input_give_the_same_levels() -> None:
    picture = RNG.integers(0, 256, (301, 211), dtype=np.uint8)
    for size in ((256, 179), (301, 211), (400, 300), (100, 211)):
        np.testing.assert_array_equal(resize_area(picture, *size), resize_area(picture.astype(np.float32), *size))


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"non-empty \(H, W\) array; got shape \(2, 2, 3\)"):
        resize_area(np.zeros((2, 2, 3), np.uint8), 1, 1)
    with pytest.raises(ValueError, match="at least 1 by 1; got 0 by 4"):
        resize_area(np.zeros((2, 2), np.uint8), 0, 4)


def test_block_means_of_fractional_levels_are_exact() -> None:
    levels = (RNG.integers(0, 4096, (24, 35)) * np.float32(255 / 4095)).astype(np.float32)
    for down, across in ((2, 2), (3, 5), (8, 7), (24, 1), (1, 35), (2, 5)):
        blocks = levels.reshape(24 // down, down, 35 // across, across) if 35 % across == 0 else None
        if blocks is None:
            blocks = levels[:, :34].reshape(24 // down, down, 34 // across, across)
        source = np.ascontiguousarray(blocks.reshape(blocks.shape[0] * down, -1))
        sums = blocks.astype(np.float64).sum(axis=(1, 3))
        if (down, across) == (2, 2):
            expected = np.floor((sums + 2) / 4)
        else:
            expected = np.rint(sums.astype(np.float32) * np.float32(1 / (down * across)))
        np.testing.assert_array_equal(resize_area(source, *blocks.shape[::2]), expected)
