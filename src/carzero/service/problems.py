"""Errors as answers: every one is a problem of RFC 9457, with the next step in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from carzero.errors import (
    CARZeroError,
    ConfigurationError,
    PromptError,
    UnreadableImageError,
    UnsuitableImageError,
)
from carzero.service.schemas import Problem

MEDIA_TYPE = "application/problem+json"
_URN = "urn:carzero:problem:"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of problem.

    Attributes:
        status: of the answer.
        title: what it is, the same for every case.
        next_step: what the caller can do.
    """

    status: int
    title: str
    next_step: str


_KINDS = (
    # name, status, title, next step
    ("malformed-body", 400, "The body cannot be read",
     "Send multipart/form-data or JSON as /openapi.json describes it."),
    ("unauthorized", 401, "A key is needed",
     "Send the header `Authorization: Bearer KEY` with a key of this service."),
    ("other-origin", 403, "Another web page asks", "Ask from the service's own page, or from a program."),
    ("other-host", 421, "The service does not answer under this name",
     "Ask under the address that `carzero serve` prints, or have this name allowed with --allowed-host."),
    ("not-found", 404, "There is nothing here", "See /openapi.json for what there is."),
    ("unknown-weights", 404, "There are no weights of this name", "See /v1/models for the names."),
    ("wrong-method", 405, "This cannot be asked in this way", "See /openapi.json for the method."),
    ("too-slow", 408, "The request arrives too slowly", "Send it again over a faster connection."),
    ("too-large", 413, "The request is too large",
     "Send fewer or smaller images at a time; /v1/models states the limits."),
    ("too-many-images", 422, "There are too many images in one request",
     "Send them in several requests; /v1/models states the limits."),
    ("too-many-prompts", 422, "Too much is asked in one request",
     "Ask fewer labels at a time; /v1/models states the limits."),
    ("too-many-maps", 422, "There are too many maps in one answer",
     "Ask for fewer images or labels at a time, or for format=arrays; /v1/models states the limits."),
    ("no-maps", 422, "These weights have no maps",
     "Ask /v1/predict, or weights whose map_kind in /v1/models is not null."),
    ("unsupported-media-type", 415, "The body is in another format",
     "Send multipart/form-data or application/json."),
    ("invalid-request", 422, "The request cannot be understood", "Compare it with /openapi.json."),
    ("unusable-words", 422, "These words cannot be asked",
     "Change the labels or prompts; /v1/prompts/lint says more."),
    ("unreadable-image", 422, "The image cannot be read", "Export the image again as DICOM, PNG, JPEG or TIFF."),
    ("unsuitable-image", 422, "This is not a chest radiograph", "Leave it out, or ask with force=true."),
    ("unreachable-image", 502, "The image cannot be fetched", "Check the address, and that the PACS answers."),
    ("forbidden-address", 403, "Images are not fetched from this address",
     "Send the image itself, or have the address allowed with --dicomweb."),
    ("not-ready", 503, "The weights are being loaded", "Ask again in a few seconds."),
    ("busy", 503, "Too much is waiting", "Ask again after the seconds that Retry-After names."),
    ("too-late", 504, "The answer took too long", "Send fewer images or labels at a time, or ask again later."),
    ("fault", 500, "The service failed", "Report it with the request_id; the log names the place."),
)  # fmt: skip

KINDS: Mapping[str, ProblemKind] = MappingProxyType(
    {name: ProblemKind(status, title, next_step) for name, status, title, next_step in _KINDS}
)


class ProblemError(Exception):
    """A request that gets a problem for an answer.

    Args:
        kind: a key of `KINDS`.
        detail: what is wrong in this case, as a sentence; never a patient's data.
        headers: of the answer.
    """

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """Of the answer."""
        return KINDS[self.kind].status

    def to_problem(self, request_id: str = "") -> Problem:
        """The answer's body."""
        kind = KINDS[self.kind]
        return Problem(
            type=_URN + self.kind,
            title=kind.title,
            status=kind.status,
            detail=self.detail,
            next_step=kind.next_step,
            request_id=request_id or None,
        )

    def encode(self, request_id: str = "") -> bytes:
        """The answer's body as bytes."""
        return json.dumps(self.to_problem(request_id).model_dump(exclude_none=True)).encode()


def to_problem_error(error: Exception, *, hide: str = "", name: str = "") -> ProblemError:
    """The problem that an error of the library is to a caller.

    Args:
        error: what was raised.
        hide: path of a file of this machine in its message, which becomes `name`.
        name: what the caller calls it.
    """
    if isinstance(error, ProblemError):
        return error
    said = str(error).replace(hide, name) if hide else str(error)
    for family, kind in _FAMILIES.items():
        if isinstance(error, family):
            return ProblemError(kind, said)
    if isinstance(error, CARZeroError):
        return ProblemError("invalid-request", said)
    return ProblemError("fault", f"{type(error).__name__}.")


_FAMILIES: Mapping[type[CARZeroError], str] = MappingProxyType(
    {
        UnsuitableImageError: "unsuitable-image",
        UnreadableImageError: "unreadable-image",
        PromptError: "unusable-words",
        ConfigurationError: "invalid-request",
    }
)
