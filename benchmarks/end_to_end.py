"""Images/s from files to scores, beside the rate of the same model on tensors in memory, at full size.

    python benchmarks/end_to_end.py [--weights DIR] [--films DIR] [--images 64] [--rounds 5] [--dtype bfloat16]
        [--kinds png jpeg dicom dicom-jpeg2000]

Weights by the test suite's formula (made on the way where --weights names none), the 14 prompts of ChestX-ray14.
Files are made from `../shared/data/nih` (or --films), enlarged to 1,024 px with noise of 1.5 grey levels, as 8-bit PNG,
JPEG of quality 90, and 12-bit DICOM, uncompressed or as lossless JPEG 2000. They are read as `carzero predict` reads
them. In each round the model scores tensors in memory, then the files of each kind; the table holds medians, also of
the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from carzero.images import PixelTransform, load_radiograph
from carzero.images.loading import Readers
from carzero.inference.classifier import ZeroShotClassifier
from carzero.prompts import load_prompt_set
from carzero.records import FailedImage, ImageItem

SIDE_PX = 1024
DISTINCT = 16
BATCH = 16
SUFFIXES = {"png": "png", "jpeg": "jpg", "dicom": "dcm", "dicom-jpeg2000": "packed.dcm"}


def enlarge(path: Path, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """An image at 1,024 px, (SIDE_PX, SIDE_PX) in 0-255, with noise so that it packs like an image of that size."""
    small = Image.fromarray(np.rint(load_radiograph(path).pixels).astype(np.uint8))
    levels = np.asarray(small.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC), dtype=np.float32)
    noise = np.random.default_rng(seed).normal(0, 1.5, levels.shape)
    return np.clip(levels + noise, 0, 255).astype(np.float32)


def save_dicom(levels: np.ndarray[Any, Any], path: Path, *, packed: bool) -> None:
    """Writes a minimal digital radiograph of 12 bits, uncompressed or as lossless JPEG 2000."""
    import imagecodecs
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import (
        DigitalXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
        JPEG2000Lossless,
        generate_uid,
    )

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.TransferSyntaxUID = JPEG2000Lossless if packed else ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    film = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    film.Modality, film.BodyPartExamined, film.PhotometricInterpretation = "DX", "CHEST", "MONOCHROME2"
    film.Rows = film.Columns = SIDE_PX
    film.SamplesPerPixel, film.PixelRepresentation = 1, 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    stored = np.rint(levels * (4095 / 255)).astype("<u2")
    if packed:
        stream = imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True, bitspersample=12)
        film.PixelData = encapsulate([stream])
    else:
        film.PixelData = stored.tobytes()
    film.save_as(path)


def make_files(films: Path, folder: Path, kinds: list[str]) -> dict[str, list[Path]]:
    """Writes DISTINCT images of each kind; returns their paths."""
    made: dict[str, list[Path]] = {kind: [] for kind in kinds}
    for number, film in enumerate(sorted(films.iterdir())[:DISTINCT]):
        levels = enlarge(film, number)
        grey = Image.fromarray(np.rint(levels).astype(np.uint8))
        for kind in kinds:
            path = folder / f"{number}.{SUFFIXES[kind]}"
            writers: dict[str, Callable[[], Any]] = {
                "png": lambda path=path, grey=grey: grey.save(path),
                "jpeg": lambda path=path, grey=grey: grey.save(path, quality=90),
                "dicom": lambda path=path, levels=levels: save_dicom(levels, path, packed=False),
                "dicom-jpeg2000": lambda path=path, levels=levels: save_dicom(levels, path, packed=True),
            }
            writers[kind]()
            made[kind].append(path)
    return made


def time_memory(classifier: ZeroShotClassifier, bank: Any, images: int) -> float:
    """Images/s of the model on one batch of tensors again and again."""
    pixels = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    for _ in range(images // BATCH):
        classifier.backend.score(pixels, bank)
    return images / (time.perf_counter() - start)


def time_files(classifier: ZeroShotClassifier, bank: Any, images: int, paths: list[Path]) -> float:
    """Images/s from files to scores, with readers that have started."""
    names = [str(paths[number % len(paths)]) for number in range(images)]
    items = [ImageItem(str(number), name, name) for number, name in enumerate(names)]
    transform = PixelTransform.of(classifier.processor.image_processor)
    with Readers(isolated=True) as readers:
        begun = items[: 2 * readers.count]
        for started in [readers.read(item, transform=transform, force=False, keep_pixels=False) for item in begun]:
            started.result()
        start = time.perf_counter()
        results = list(classifier.stream(items, bank, batch_size=BATCH, readers=readers, in_order=False))
        seconds = time.perf_counter() - start
    failed = [result.failure.reason for result in results if isinstance(result, FailedImage)]
    if failed:
        raise SystemExit(f"{len(failed)} of {images} files were not scored: {failed[0]}")
    return images / seconds


def time_reading(paths: list[Path]) -> float:
    """Milliseconds of one core for reading a file down to the model's crop."""
    from carzero.images.loading import load_item

    spent = []
    for path in paths * 3:
        start = time.process_time()
        load_item(ImageItem(str(path), str(path), str(path)), PixelTransform())
        spent.append(1e3 * (time.process_time() - start))
    return statistics.median(spent)


def find_weights(folder: Path | None, temporary: Path) -> Path:
    """The folder of converted weights; made where none is named."""
    if folder is not None:
        return folder
    maker = Path(__file__).with_name("convert_full_size.py")
    subprocess.run([sys.executable, str(maker), "--keep", str(temporary)], check=True, stdout=subprocess.DEVNULL)
    return temporary / "weights"


def measure(options: argparse.Namespace, temporary: Path) -> None:
    """Measures and prints a Markdown table."""
    weights = find_weights(options.weights, temporary)
    files = make_files(options.films, temporary, options.kinds)
    reading = {kind: time_reading(files[kind]) for kind in options.kinds}
    classifier = ZeroShotClassifier.from_pretrained(weights, dtype=options.dtype)
    bank = classifier.encode_prompts(load_prompt_set("chestxray14", "paper"))
    time_memory(classifier, bank, 2 * BATCH)
    memory: list[float] = []
    rates: dict[str, list[float]] = {kind: [] for kind in options.kinds}
    for _ in range(options.rounds):
        memory.append(time_memory(classifier, bank, options.images))
        for kind in options.kinds:
            rates[kind].append(time_files(classifier, bank, options.images, files[kind]))
    print(f"{options.dtype}, {len(bank.labels)} prompts, {options.images} images a round, {options.rounds} rounds")
    print("| from | images/s | of in memory | range of ratios | reading, ms of one core |\n" + "|---" * 5 + "|")
    print(f"| tensors in memory | {statistics.median(memory):.2f} | 1 | | |")
    for kind in options.kinds:
        ratios = [rate / base for rate, base in zip(rates[kind], memory, strict=True)]
        print(
            f"| {kind} | {statistics.median(rates[kind]):.2f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f}-{max(ratios):.2f} | {reading[kind]:.1f} |"
        )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")


def main() -> None:
    """Reads the options and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="full-size weights; convert_full_size.py --keep DIR makes them")
    films = Path(__file__).parents[2] / "shared" / "data" / "nih" / "images"
    parser.add_argument("--films", type=Path, default=films, help="folder of images to enlarge")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--kinds", nargs="+", choices=list(SUFFIXES), default=list(SUFFIXES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(options, Path(temporary))


if __name__ == "__main__":
    main()
