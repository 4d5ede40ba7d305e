"""A folder as it comes from a hospital share: right scores for what is right, a reason for each of the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from tests.support.commands import carzero
from tests.support.image_files import dicom, film
from tests.support.released import FIXTURES

PICTURE = FIXTURES / "images" / "img0.png"
REFUSED = {
    "text.png": "not an image",
    "empty.png": "empty",
    "cut.jpg": "truncated|cut",
    "ct.dcm": "CT",
    "hand.dcm": "HAND",
}
RG1 = ("RG1_UNCR.dcm", "RG1_UNCI.dcm", "RG1_J2KR.dcm", "RG1_J2KI.dcm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_store = pytest.importorskip("data_store", reason="needs the package pydicom-data (extra test)")
    folder = tmp_path_factory.mktemp("share")
    (folder / "text.png").write_text("this is not an image\n")
    (folder / "empty.png").touch()
    grey = Image.open(PICTURE).convert("L")
    grey.save(folder / "whole.jpg", quality=95)
    content = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), folder / "ct.dcm")
    (folder / "hand.dcm").write_bytes(dicom(film(), BodyPartExamined="HAND"))
    shutil.copy(PICTURE, folder / "eight.png")
    deep = np.asarray(grey).astype(np.uint16) * 16
    deep[0, 0] = 4095  # a 12-bit image uses its range
    Image.fromarray(deep).save(folder / "twelve_in_sixteen.png")
    for name in RG1:
        shutil.copy(Path(data_store.__file__).parent / "data" / name, folder / name)
    return folder


def test_right_scores_for_what_is_right_and_a_reason_for_each_of_the_rest(folder: Path, tiny_weights: Path) -> None:
    done = carzero("predict", folder, "--labels", "pneumonia,edema", "--weights", tiny_weights, "--json")
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    reasons = {failure["image_id"]: failure["reason"] for failure in result["failures"]}
    assert reasons.keys() == REFUSED.keys()
    for name, reason in REFUSED.items():
        assert any(word.lower() in reasons[name].lower() for word in reason.split("|")), reasons[name]
        assert name in done.stderr
    scores = {row["image_id"]: np.array([row["logit:pneumonia"], row["logit:edema"]]) for row in result["scores"]}
    assert scores.keys() == {"whole.jpg", "eight.png", "twelve_in_sixteen.png", *RG1}
    spread = max(np.abs(scores["eight.png"] - scores["RG1_UNCR.dcm"]))
    assert spread > 0.01, "the images must differ, or equal scores prove nothing"
    np.testing.assert_allclose(scores["twelve_in_sixteen.png"], scores["eight.png"], atol=0.05 * spread)
    np.testing.assert_allclose(scores["whole.jpg"], scores["eight.png"], atol=0.05 * spread)
    np.testing.assert_allclose(scores["RG1_J2KR.dcm"], scores["RG1_UNCR.dcm"], atol=1e-5)
    np.testing.assert_allclose(scores["RG1_J2KI.dcm"], scores["RG1_UNCI.dcm"], atol=1e-5)
    np.testing.assert_allclose(scores["RG1_J2KI.dcm"], scores["RG1_UNCR.dcm"], atol=0.05 * spread)
