"""Makes `tests` importable from every test folder, keeps the network out, and builds what many tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported; commands inherit it
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# An example may take as long as it likes: how fast this machine is just now is no property of the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

if TYPE_CHECKING:
    from carzero.inference.classifier import ZeroShotClassifier


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights for `--weights`: ViT and BERT, SimR."""
    from tests.support.tiny import save_tiny_weights

    return save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven synthetic images."""
    from tests.support.tiny import save_images

    return save_images(tmp_path_factory.mktemp("films"), 7)


@pytest.fixture(scope="session")
def classifier(tiny_weights: Path) -> ZeroShotClassifier:
    """The door to prediction with the tiny weights, on the CPU."""
    from carzero.inference.classifier import ZeroShotClassifier

    return ZeroShotClassifier.from_pretrained(tiny_weights, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of open data sets that are not part of the repository; tests that need it skip without it."""
    folder = Path(os.environ.get("CARZERO_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("needs the open data sets: set CARZERO_SHARED to the folder that holds data/")
    return folder
