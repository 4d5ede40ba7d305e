"""What is sent to the service: bodies of JSON and of forms, for every route that takes one."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz.clinical import to_bytes
from tests.fuzz.mutate import Files
from tests.fuzz.seeds import single
from tests.support.image_files import encode, film
from tests.support.studies import chest

_BOUNDARY = "xxxx"
_ROUTES = {"predict": "/v1/predict", "ground": "/v1/ground", "pixels": "/v1/pixels", "lint": "/v1/prompts/lint"}


def _form(fields: dict[str, str], image: bytes, name: str, field: str = "images") -> bytes:
    parts = [f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items()]
    parts.append(f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + image)
    lines = b"".join(f"--{_BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts)
    return lines + f"--{_BOUNDARY}--\r\n".encode()


def requests() -> list[Files]:
    image, header = encode(film(64, 64), "PNG"), to_bytes(chest(1, Rows=60, Columns=60, PixelData=bytes(7200)))
    sent = {"instances": [{"name": "a", "b64": base64.b64encode(image).decode()}]}
    asked = {"labels": ["edema", "mass"], "pool": "max", "force": True}
    prompts = {"edema": {"positive": ["There is edema"], "negative": ["No edema"]}, "mass": ["There is a mass"]}
    paired = {"prompts": {"edema": prompts["edema"]}, "score_kind": "logit_difference"}
    remote = {"instances": [{"dicomweb": "http://pacs.invalid/studies/1.2/series/1.3/instances/1.4"}]}
    files = {
        "predict-labels.json": json.dumps({**sent, **asked}).encode(),
        "predict-prompts.json": json.dumps({**sent, **paired}).encode(),
        "predict-remote.json": json.dumps({**remote, **asked}).encode(),
        "predict.form": _form({"prompts": json.dumps(prompts), "force": "true"}, image, "a.png"),
        "ground.json": json.dumps({**sent, **asked, "format": "png", "box_share": 0.4}).encode(),
        "ground.form": _form({"labels": "edema", "format": "float32", "force": "true"}, header, "a.dcm"),
        "pixels.form": _form({"force": "true"}, header, "a.dcm", "image"),
        "lint.json": json.dumps({"labels": ["edema", "no mass", "?"], "template": "There is {label}"}).encode(),
    }
    return single(files)


@cache
def _client(weights: Path) -> Any:
    """A client of a service that is ready, for as long as this process lives."""
    from tests.support.service import run_client

    made = run_client(weights)
    client = made.__enter__()
    client.carzero_kept = made  # else it would be closed
    return client


def read_request(folder: Path, weights: Path) -> None:
    """Sends a body; whatever it holds, the answer is scores or a problem of the caller's."""
    (path,) = folder.iterdir()
    kind = f"multipart/form-data; boundary={_BOUNDARY}" if path.suffix == ".form" else "application/json"
    route = _ROUTES[path.stem.partition("-")[0]]
    answer = _client(weights).post(route, content=path.read_bytes(), headers={"Content-Type": kind})
    assert answer.status_code < 500 or answer.status_code == 502, answer.text[:500]
    if answer.status_code >= 400:
        from carzero.errors import TableError

        problem = answer.json()
        assert problem["next_step"], "a problem without a next step"
        assert str(folder) not in problem["detail"], "a path of this machine"
        raise TableError(problem["detail"])
