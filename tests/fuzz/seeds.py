"""Small samples of every kind of file, as the project and its users' programs write them."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import yaml
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.fuzz.mutate import Files
from tests.support.image_files import dicom, encode, film, lut
from tests.support.official import NIH_HEADER, openi_report, padchest_table
from tests.support.releases import REPORTS, save_mimic

ROOT = Path(__file__).parents[1]
SIDE = 96
REPORT = "FINDINGS: The lungs are clear. There is a small left pleural effusion.\nIMPRESSION: Pleural effusion."


def written(write: Callable[[Path], object]) -> dict[str, bytes]:
    """The files that a function writes into a folder, by name; those of folders in it with their path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def single(files: Mapping[str, bytes]) -> list[Files]:
    return [{name: content} for name, content in files.items()]


def images() -> list[Files]:
    grey, deep = film(SIDE, SIDE), film(SIDE, SIDE, largest=65535, dtype=np.uint16)
    colour = Image.fromarray(np.stack([grey] * 3, axis=-1))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 40
    alpha = colour.convert("RGBA")
    files = {
        "grey.jpg": encode(grey, "JPEG"),
        "colour.jpg": encode(colour, "JPEG", exif=exif.tobytes(), progressive=True),
        "restart.jpg": encode(grey, "JPEG", restart_marker_blocks=4),
        "cmyk.jpg": encode(colour.convert("CMYK"), "JPEG"),
        "grey.png": encode(grey, "PNG"),
        "deep.png": encode(deep, "PNG"),
        "alpha.png": encode(alpha, "PNG", exif=exif.tobytes()),
        "palette.png": encode(colour.quantize(64), "PNG"),
        "bilevel.png": encode(Image.fromarray(grey > 128), "PNG"),
        "grey.tif": encode(grey, "TIFF"),
        "lzw.tif": encode(deep, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encode(colour, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encode(grey, "TIFF", compression="jpeg"),
        "float.tif": encode(Image.fromarray(film(SIDE, SIDE).astype(np.float32)), "TIFF"),
        "pages.tif": encode(grey, "TIFF", save_all=True, append_images=[Image.fromarray(grey)]),
    }
    field = ROOT / "images" / "fixtures" / "field"
    files |= {path.name: path.read_bytes() for path in sorted(field.glob("f*")) if path.suffix in (".jpg", ".png")}
    return single(files)


def dicoms() -> list[Files]:
    grey, deep = film(SIDE, SIDE), film(SIDE, SIDE, largest=4095, dtype=np.uint16)
    jp2 = imagecodecs.jpeg2k_encode(deep, codecformat="J2K", level=0, reversible=True)
    plane = b"".join(b"\x5f" + row.tobytes() for row in grey)
    rle = np.array([1, 64, *[0] * 14], "<u4").tobytes() + plane
    window = {"WindowCenter": 2000, "WindowWidth": 3000, "RescaleSlope": "1.5", "RescaleIntercept": "-20"}
    table = lut((np.arange(4096) * 16).astype(np.uint16), 0, 16)
    file = Dataset()
    file.ModalityLUTType = "US"
    made = {
        "explicit": dicom(deep, bits=12, **window),
        "implicit": dicom(deep, syntax=ImplicitVRLittleEndian),
        "big": dicom(deep.byteswap().view(deep.dtype.newbyteorder(">")), syntax=ExplicitVRBigEndian),
        "deflated": dicom(grey, syntax="1.2.840.10008.1.2.1.99"),
        "colour": dicom(np.stack([grey] * 3, axis=-1)),
        "signed": dicom(deep.astype(np.int16), PixelPaddingValue=-5),
        "lut": dicom(deep, bits=12, VOILUTSequence=[table]),
        "modality": dicom(deep, bits=12, ModalityLUTSequence=[table]),
        "bare": dicom(grey, preamble=False),
        "jpeg": dicom(grey, syntax="1.2.840.10008.1.2.4.50", frame=encode(grey, "JPEG")),
        "lossless": dicom(
            deep, bits=12, syntax="1.2.840.10008.1.2.4.70", frame=imagecodecs.ljpeg_encode(deep, bitspersample=12)
        ),
        "ls": dicom(deep, bits=12, syntax="1.2.840.10008.1.2.4.80", frame=imagecodecs.jpegls_encode(deep)),
        "jp2": dicom(deep, syntax="1.2.840.10008.1.2.4.90", frame=jp2),
        "htj2k": dicom(grey, syntax="1.2.840.10008.1.2.4.201", frame=imagecodecs.htj2k_encode(grey, reversible=True)),
        "rle": dicom(grey, syntax="1.2.840.10008.1.2.5", frame=rle + b"\0" * (len(rle) % 2)),
    }
    field = ROOT / "images" / "fixtures" / "field"
    made |= {path.stem: path.read_bytes() for path in sorted(field.glob("*.dcm"))}
    return single({f"{name}.dcm": content for name, content in made.items()})


def _tables(frame: pd.DataFrame, name: str = "table") -> dict[str, bytes]:
    def write(folder: Path) -> None:
        frame.to_csv(folder / f"{name}.csv", index=False)
        frame.to_csv(folder / f"{name}.tsv", index=False, sep="\t")
        frame.to_parquet(folder / f"{name}.parquet")
        frame.to_json(folder / f"{name}.json", orient="records")
        frame.to_json(folder / f"{name}.jsonl", orient="records", lines=True)

    return written(write)


def _scores_frame() -> pd.DataFrame:
    from carzero.inference.score_table import KEY_COLUMNS

    keys = {name: [f"{name}{number}" for number in range(6)] for name in KEY_COLUMNS}
    logits = {f"logit:{label}": np.linspace(-2, 2, 6).astype(np.float32) for label in ("edema", "mass")}
    return pd.DataFrame({**keys, **logits, "prob:edema": np.linspace(0, 1, 6), "warnings": ""})


def scores() -> list[Files]:
    manifest = json.dumps({"date": "2026-11-28T00:00:00+00:00", "carzero_version": "0.1.0", "failures": []}).encode()
    tables = _tables(_scores_frame())
    return [
        {name: content, f"{name}.manifest.json": manifest}
        for name, content in tables.items()
        if name[-4:] in ("json", ".csv", "quet")
    ]


def truths() -> list[Files]:
    columns = {
        "image_id": list("abcdef"),
        "patient_id": ["007", "8", "9", "9", "1", "2"],
        "Edema": [1, 0, -1, None, 0, 1],
    }
    return single(_tables(pd.DataFrame({**columns, "mass": [1.0, 0, 0, 0, 1, 1], "age": range(6)})))


def pairs() -> list[Files]:
    rows = {
        "image": [f"{n}.png" for n in range(5)],
        "path": [f"{n}.png" for n in range(5)],
        "split": ["train"] * 4 + ["val"],
    }
    rows |= {"text": [REPORT] * 5, "present": ["edema|mass"] * 5, "absent": [""] * 5, "patient_id": list("12345")}
    texts = pd.DataFrame(rows)
    lists = texts.drop(columns="text").assign(sentences=[["There is edema.", "No mass."]] * 5)
    return single(
        _tables(texts) | {f"lists{Path(name).suffix}": data for name, data in _tables(lists, "lists").items()}
    )


def report_tables() -> list[Files]:
    rows = {"report_id": ["1", "2", "3"], "text": [REPORT, "No edema.", "Heart: normal (-)."], "present": ["edema"] * 3}
    split = {
        "study_id": [1, 2],
        "findings": ["Clear lungs.", None],
        "impression": [None, "Effusion: no."],
        "absent": ["mass"] * 2,
    }
    return single(_tables(pd.DataFrame(rows)) | _tables(pd.DataFrame(split), "split"))


def boxes() -> list[Files]:
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 200, "width": 300}],
        "categories": [{"id": 7, "name": "Mass"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 30, 40], "score": 0.5, "caption": "x"}
        ],
    }
    det = [
        {"file_name": "a.png", "syms": ["Mass"], "boxes": [[0, 0, 12, 24]]},
        {"file_name": "b.png", "syms": [], "boxes": []},
    ]
    cxr = {
        "dicom_id": ["a", "b"],
        "category_name": ["Mass"] * 2,
        "x": [1.0, None],
        "y": [2.0, None],
        "w": [5.0, None],
        "h": [6.0, None],
    }
    cxr |= {"label_text": ["a mass", None], "image_height": [200, 300], "image_width": [200, 300]}
    files = {"coco.json": json.dumps(coco).encode(), "det.json": json.dumps(det).encode()}
    return single(files | {f"cxr{Path(name).suffix}": data for name, data in _tables(pd.DataFrame(cxr)).items()})


def releases() -> list[Files]:
    chexpert = "Path,Atelectasis,Cardiomegaly,Consolidation,Edema,Pleural Effusion\n"
    chexpert += "test/patient1/study1/view1_frontal.jpg,0,1,0,0.0,1.0\n"
    listed = "".join(f"images_001/0000000{n}_000.png {' '.join('01'[n % 2] for _ in range(14))}\n" for n in range(4))
    manual = {f"{n}/16.png": ["kyphosis", "nodule"] for n in range(3)}
    row = {"ImageID": "1_2.png", "PatientID": "0012", "MethodLabel": "Physician", "Labels": "['kyphosis', ' nodule']"}
    padchest = written(lambda folder: padchest_table(folder / "padchest.csv", [row]))
    custom = "uid,file_name,labels_automatic\n1,1_IM-0001-3001.dcm.png,Cardiomegaly|Edema\n2,2_IM-0002-1001.png,\n"
    report = openi_report("CXR1", ["CXR1_1_IM-0001-3001"], ["Cardiomegaly/mild"], ["cardiomegaly"]).encode()

    def archive(folder: Path) -> None:
        from tests.support.official import openi_archive

        openi_archive(
            folder / "NLMCXR_reports.tgz", {"1.xml": report.decode(), "2.xml": report.decode().replace("CXR1", "CXR2")}
        )

    files = {
        "chexpert.csv": chexpert.encode(),
        "test_list.txt": listed.encode(),
        "manual_image.json": json.dumps(manual).encode(),
    }
    assert NIH_HEADER
    return single(files | padchest | {"custom.csv": custom.encode()} | written(archive))


def mimic() -> list[Files]:
    def write(folder: Path) -> None:
        (folder / "image.jpg").write_bytes(encode(film(8, 8), "JPEG"))
        save_mimic(folder / "root", folder / "image.jpg", zipped=True, reports=REPORTS)

    files = written(write)
    tables = {
        name.removeprefix("root/"): data
        for name, data in files.items()
        if name.startswith("root/") and "files/" not in name
    }
    return [tables]


def prompts() -> list[Files]:
    plain = {"edema": "There is edema", "pleural effusion": ["There is pleural effusion", "Fluid is seen"]}
    entry = {
        "positive": ["There is a mass"],
        "negative": ["There is no mass"],
        "synonyms": ["tumour"],
        "code": {"scheme": "SCT", "value": "4147007"},
    }
    full = {"version": "1", "source": "ours", **plain, "mass": entry}
    yamls = {f"{n}.yaml": yaml.safe_dump(each).encode() for n, each in enumerate((plain, full))}
    return single(yamls | {f"{n}.json": json.dumps(each).encode() for n, each in enumerate((plain, full))})


def recipes() -> list[Files]:
    from tests.support.runs import tiny_recipe

    files = {
        f"{path.parent.name}-{path.name}": path.read_bytes()
        for path in sorted((ROOT.parent / "recipes").rglob("*.yaml"))
    }
    return single(files | {"tiny.yaml": yaml.safe_dump(tiny_recipe()).encode()})


def records() -> list[Files]:
    from dataclasses import asdict

    from carzero.reports.rules import RuleAligner

    manifest = {
        "date": "2026-11-28T00:00:00+00:00",
        "carzero_version": "0.1.0",
        "dtype": "float32",
        "preprocessing": {"crop_px": 224},
    }
    aligned = RuleAligner().align("1", REPORT)
    row = {"report_id": "1", "text": REPORT, "backend": "rules", "sentences": list(aligned.sentences), "fallback": ""}
    row["structured"] = [asdict(finding) for finding in aligned.findings]
    graph = {"name": "keys", "prompts_axis": 0, "tokens_axis": None}
    export = {
        "format": 1, "engine": "onnx", "dtype": "float32", "source": {"weights": "demo", "sha256": "0" * 64},
        "prompt_tensors": [graph], "prompts": {"edema": ["There is edema"]}, "prompts_sha256": "0" * 64, "opset": 18,
        "versions": {"torch": "2"}, "date": "2026", "calibration": None, "accuracy": None,
        "files": {"scoring.onnx": "0" * 64, "scoring.onnx.data": "0" * 64},
    }  # fmt: skip
    lines = b"".join(json.dumps({**row, "report_id": str(number)}).encode() + b"\n" for number in range(3))
    return single(
        {
            "scores.csv.manifest.json": json.dumps(manifest).encode(),
            "aligned.jsonl": lines,
            "export.json": json.dumps(export).encode(),
        }
    )


def reports() -> list[Files]:
    kinds = (ROOT / "reports" / "fixtures" / "kinds.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [
        str(next(iter(value for value in json.loads(line).values() if isinstance(value, str) and " " in value), ""))
        for line in kinds
    ]
    longer = ["\n".join(texts[start : start + 20]) for start in range(0, len(texts), 20)]
    return single({f"{n}.txt": text.encode() for n, text in enumerate([REPORT, *REPORTS.values(), *longer])})


def journals() -> list[Files]:
    from carzero.core.journal import Journal
    from carzero.core.run_record import RunRecord
    from carzero.inference.score_table import pack_frame

    identity = RunRecord({"w": "demo"}, "0.1.0").identity
    frame = _scores_frame()
    rows = [*pack_frame(frame), {"image_id": "x", "path": "x", "reason": "it is broken"}]

    def scored(folder: Path) -> None:
        with Journal.start(folder / "scores.csv.journal", identity, key="image_id") as journal:
            journal.append(rows)

    def aligned(folder: Path) -> None:
        lines = records()[1]["aligned.jsonl"].splitlines()
        with Journal.start(folder / "reports.jsonl.partial", identity) as journal:
            journal.append([json.loads(line) for line in lines])

    return single(written(scored) | written(aligned))


def save_world(folder: Path) -> None:
    """Tiny weights, a bank of theirs, and an image."""
    from carzero.inference.classifier import ZeroShotClassifier
    from carzero.prompts import PromptSet
    from tests.support.tiny import save_tiny_weights

    save_tiny_weights(folder / "weights")
    (folder / "image.png").write_bytes(encode(film(), "PNG"))
    classifier = ZeroShotClassifier.from_pretrained(folder / "weights", device="cpu", dtype="float32")
    classifier.save_prompts(classifier.encode_prompts(PromptSet.from_labels(["edema", "mass"])), folder / "bank")


def bank(world: Path) -> list[Files]:
    return [{path.name: path.read_bytes() for path in sorted((world / "bank").iterdir())}]


def weights(world: Path) -> list[Files]:
    return [{path.name: path.read_bytes() for path in sorted((world / "weights").iterdir())}]


def checkpoints() -> list[Files]:
    import torch

    from tests.support.checkpoint_files import save_released

    small = {
        "fusion_module.mlp_head.0.weight": torch.randn(4, 6),
        "img_encoder.model.cls_token": torch.randn(1, 1, 8).half(),
    }

    def write(folder: Path) -> None:
        save_released(folder / "released.ckpt", small)
        torch.save({"state_dict": {f"CARZero.{name}": tensor for name, tensor in small.items()}}, folder / "plain.ckpt")
        state = {"loop": {"step": 3}, "schedule": {"a": 1.0}, "average": {}, "model": small, "optimiser": {}}
        torch.save(state, folder / "step-00000003.pt")

    return single(written(write))


def calibrations() -> list[Files]:
    from carzero.metrics.calibration import Abnormality, Calibration
    from carzero.metrics.calibrators import LabelCalibration

    parameters: Sequence[tuple[Any, Any]] = (
        ("platt", {"slope": 2.0, "intercept": -1.0}),
        ("isotonic", {"scores": [-1.0, 0.0, 2.0], "probabilities": [0.1, 0.4, 0.9]}),
        ("temperature", {"temperature": 2.0}),
    )
    maps = {method: LabelCalibration(method, values, 20, 5, -1.0, 2.0) for method, values in parameters}
    whole = Abnormality(("platt", "isotonic"), "", "max", maps["platt"])
    made = Calibration(
        maps, provenance={"date": "x"}, left_out={"a": "few"}, thresholds={"f1": {"platt": 0.5}}, abnormality=whole
    )
    return single({"calibration.json": json.dumps({"carzero_calibration": 1, **made.to_record()}).encode()})


def answers() -> list[Files]:
    from carzero.structuring.answer_cache import AnswerCache, KeptAnswer
    from tests.support.stub_server import completion, faithful_answer

    good = faithful_answer(REPORT)
    whole = completion(good)
    parts = [{"choices": [{"delta": {"content": good[at : at + 40]}}]} for at in range(0, len(good), 40)]
    events = "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n"
    refused = json.dumps(
        {"error": {"message": "seed is not supported", "param": "seed", "detail": [{"loc": ["body", "seed"]}]}}
    )
    found = {path.name: path.read_bytes() for path in sorted((ROOT / "structuring" / "fixtures" / "field").iterdir())}
    texts = [json.loads(line) for name, data in found.items() if name.endswith(".jsonl") for line in data.splitlines()]
    said = [
        str(next((v for v in each.values() if isinstance(v, str) and "{" in v), ""))
        for each in texts
        if isinstance(each, dict)
    ]

    def cache(folder: Path) -> None:
        with AnswerCache(folder / "cache.sqlite") as kept:
            kept.save("key", "m", KeptAnswer(good, "", 1, 2))

    files = {
        "whole.json": whole,
        "events.sse": events.encode(),
        "refused.json": refused.encode(),
        "good.txt": good.encode(),
    }
    files |= {"thought.txt": f"<think>hm</think>\n```json\n{good}\n```".encode()}
    files |= {f"said{n}.txt": text.encode() for n, text in enumerate(said)}
    return single(files | written(cache))


def maps() -> list[Files]:
    from carzero.images import PixelTransform
    from carzero.inference.heatmaps import MapTable, ScoreMap, save_map, save_map_table

    grid = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    table = MapTable(
        ("a", "b"), ("Mass",), np.stack([grid[None]] * 2), np.ones((2, 1), np.float32), np.array([[20, 30]] * 2),
        PixelTransform(36, 32), {"weights": "demo", "preprocessing": {"image_mean": 0.5, "image_std": 0.25}},
    )  # fmt: skip
    one = ScoreMap(np.pad(grid, 3, constant_values=np.nan), grid, np.eye(3)[:2])
    plain = written(lambda folder: (save_map_table(table, folder / "table.npz"), save_map(one, folder / "map.npz")))
    return [*single(plain), written(lambda folder: save_map(one, folder / "map.png"))]


def gzipped(content: bytes) -> bytes:
    import gzip

    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        file.write(content)
    return out.getvalue()
