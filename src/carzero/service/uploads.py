"""Requests read: images into files of the request's own folder, and what is asked of them as one checked record."""

from __future__ import annotations

import base64
import binascii
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from carzero.core.documents import parse_json, parse_json_object
from carzero.errors import printable
from carzero.prompts import PromptSet, load_prompt_set
from carzero.prompts.style import PromptStyle
from carzero.service.problems import ProblemError
from carzero.service.remote_images import RemoteImages
from carzero.service.schemas import Asked, EncodedImage, ImageReference, Instances, PromptRecord
from carzero.service.settings import Limits

_MOST_FIELDS = 2048
_LONGEST_NAME = 200
_FILES = "images"
_REPEATED = ("labels",)
_NESTED = ("prompts",)

SentT = TypeVar("SentT", bound=BaseModel)
AskedT = TypeVar("AskedT", bound=Asked)


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image of a request.

    Attributes:
        name: that the caller gave it.
        path: of its file; None where it could not be had.
        error: why it could not be had.
    """

    name: str
    path: Path | None = None
    error: ProblemError | None = None


async def receive_images(
    request: Request, kind: type[AskedT], folder: Path, limits: Limits, remote: RemoteImages
) -> tuple[list[SentImage], AskedT]:
    """Reads a request: multipart files and fields, or JSON.

    Args:
        request: whose body was not read yet.
        kind: of what is asked beside images.
        folder: takes the images.
        limits: what it may hold.
        remote: fetches images that are named by address.

    Raises:
        ProblemError: the body is malformed, of another form, or holds more than it may.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        async with reading_form(request, limits.images) as form:
            asked = validate(kind, _to_fields(form))
            return await store_files(form, _FILES, folder, limits.images), asked
    if media == "application/json":
        body = await request.body()
        return await run_in_threadpool(_receive_json, body, kind, folder, limits, remote)
    raise ProblemError("unsupported-media-type", f"Got the content type {media[:100]!r}.")


def _receive_json(
    body: bytes, kind: type[AskedT], folder: Path, limits: Limits, remote: RemoteImages
) -> tuple[list[SentImage], AskedT]:
    content = _parse(body)
    sent = validate(Instances, {"instances": content.pop("instances", None)})
    _check_count(len(sent.instances), limits.images)
    asked = validate(kind, content)
    return _store_instances(sent.instances, folder, remote), asked


@asynccontextmanager
async def reading_form(request: Request, most_files: int) -> AsyncIterator[FormData]:
    """The form in a request's body.

    Raises:
        ProblemError: it is malformed.
    """
    try:
        form = await request.form(max_files=most_files + 1, max_fields=_MOST_FIELDS)
    except HTTPException as error:
        if str(error.detail).startswith("Too many files"):
            _check_count(most_files + 1, most_files)
        raise ProblemError("malformed-body", f"The form cannot be read: {error.detail}") from error
    try:
        yield form
    finally:
        await form.close()


async def store_files(form: FormData, field: str, folder: Path, most: int) -> list[SentImage]:
    """Writes the files of a form into a folder, in order.

    Args:
        form: as it was read.
        field: in which files come.
        folder: takes them.
        most: how many there may be.

    Raises:
        ProblemError: there are none, too many, or files in another field.
    """
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files or any(name != field for name, _ in files):
        got = sorted({name for name, _ in files})[:5]
        raise ProblemError("invalid-request", f"Got files in the fields {got}; expected some in {field!r}.")
    _check_count(len(files), most)
    sent = []
    for number, (_, file) in enumerate(files, start=1):
        path = folder / f"{number:04d}"
        await run_in_threadpool(_write, file, path)
        sent.append(SentImage(_to_name(file.filename, number), path))
    return sent


def validate(kind: type[SentT], content: Mapping[str, object]) -> SentT:
    """Values as a checked record.

    Raises:
        ProblemError: they are none; the first thing wrong is named.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ProblemError("invalid-request", describe_invalid(error.errors(include_input=False))) from error


def describe_invalid(errors: Sequence[Mapping[str, object]]) -> str:
    """What is wrong with values, as a sentence: the first three places. What was sent is not quoted."""
    said = []
    for each in errors[:3]:
        place = each.get("loc")
        parts = [str(part) for part in place] if isinstance(place, tuple | list) else []
        said.append(f"{'.'.join(parts) or 'the body'}: {each.get('msg')}")
    return printable("; ".join(said))[:1000] + "."


def to_prompt_set(asked: Asked, style: PromptStyle, limits: Limits) -> PromptSet:
    """What is asked, as the library takes it.

    Args:
        asked: in a request.
        style: how the weights want to be asked, for what the request leaves open.
        limits: of a request.

    Raises:
        ProblemError: nothing is asked, or in two ways, or too much.
        PromptError: words that cannot be asked.
    """
    given = [name for name in ("labels", "prompts", "prompt_set") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise ProblemError("invalid-request", f"Got {given or 'no words'}; expected labels, prompts or prompt_set.")
    prompts: Mapping[str, object] | PromptSet | None = None
    if asked.prompts is not None:
        prompts = {label: _to_record(value) for label, value in asked.prompts.items()}
        if reserved := sorted({"version", "source"} & set(prompts)):  # a prompt file's own fields, not labels
            raise ProblemError("invalid-request", f"Got labels {reserved}; expected other names.")
    elif asked.prompt_set is not None:
        name, _, variant = asked.prompt_set.partition(":")
        prompts = load_prompt_set(name, variant or None)
    prompt_set = style.ask(asked.labels, prompts, asked.template, asked.score_kind)
    if (count := len(prompt_set.questions)) > limits.prompts:
        raise ProblemError("too-many-prompts", f"Got {count} prompts; expected at most {limits.prompts}.")
    return prompt_set


def _to_record(value: str | Sequence[str] | PromptRecord) -> object:
    return value.model_dump() if isinstance(value, PromptRecord) else value


def _to_fields(form: FormData) -> dict[str, object]:
    """The fields of a form that are not files: labels as a list, prompts as what their JSON says."""
    fields: dict[str, object] = {}
    for name in dict.fromkeys(form):
        values = [value for value in form.getlist(name) if isinstance(value, str)]
        if not values:
            continue
        if name in _REPEATED:
            fields[name] = values
        elif len(values) > 1:
            raise ProblemError("invalid-request", f"Got the field {name[:100]!r} {len(values)} times; expected once.")
        elif name in _NESTED:
            fields[name] = _parse_field(name, values[0])
        else:
            fields[name] = values[0]
    return fields


def _parse_field(name: str, text: str) -> object:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ProblemError("invalid-request", f"The field {name!r} is not JSON: {error}.") from error


def _parse(body: bytes) -> dict[str, object]:
    try:
        return parse_json_object(body)
    except ValueError as error:
        raise ProblemError("malformed-body", f"The body is not a JSON object: {str(error)[:200]}.") from error


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise ProblemError("too-many-images", f"Got more than {most} images.")


def _write(file: UploadFile, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target, 2**20)


def _store_instances(
    instances: Sequence[EncodedImage | ImageReference], folder: Path, remote: RemoteImages
) -> list[SentImage]:
    sent = []
    for number, each in enumerate(instances, start=1):
        name, path = _to_name(each.name, number), folder / f"{number:04d}"
        try:
            if isinstance(each, ImageReference):
                path.write_bytes(remote.fetch(each.dicomweb))
            else:
                path.write_bytes(_decode(each.b64))
        except ProblemError as error:
            sent.append(SentImage(name, error=error))
        else:
            sent.append(SentImage(name, path))
    return sent


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError("unreadable-image", f"Its b64 is not base64: {error}.") from error


def _to_name(given: str | None, number: int) -> str:
    return printable((given or "")[:_LONGEST_NAME]) or f"image-{number}"
