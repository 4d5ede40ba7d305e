"""The description of the service in OpenAPI 3.1: bodies in two forms, problems, and the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from carzero.service.problems import KINDS, MEDIA_TYPE
from carzero.service.schemas import GroundForm, GroundRequest, PredictForm, PredictRequest, Problem

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (GroundForm, GroundRequest, PredictForm, PredictRequest, Problem)

_EXAMPLES: dict[str, object] = {
    "file": {
        "summary": "A file in the request",
        "value": {"instances": [{"name": "chest.png", "b64": "iVBORw0KGgo="}], "labels": ["pneumonia"]},
    },
    "pacs": {
        "summary": "An image in a PACS that the service may fetch from, and sentences of one's own",
        "value": {
            "instances": [{"dicomweb": "https://pacs/dicom-web/studies/1.2/series/1.2.3/instances/1.2.3.4"}],
            "prompts": {"effusion": ["There is pleural effusion", "There is fluid in the pleural space"]},
        },
    },
}

BINARY: dict[str, object] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "Levels, little-endian uint16, row after row.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                "CARZero-Image": {
                    "description": "What a viewer must know: ImageFacts as JSON in ASCII.",
                    "schema": {"type": "string"},
                }
            },
        }
    },
}


def describe_body(form: type[BaseModel], sent: type[BaseModel]) -> dict[str, object]:
    """The body of a request that comes as a form with files, or as JSON."""
    media = {"multipart/form-data": form, "application/json": sent}
    content: dict[str, dict[str, object]] = {
        name: {"schema": {"$ref": _REF.format(model=kind.__name__)}} for name, kind in media.items()
    }
    content["application/json"]["examples"] = _EXAMPLES
    return {"requestBody": {"required": True, "content": content}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers with a problem: those of every request, and these."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}}
    return {
        status: {
            "description": "; ".join(kind.title for kind in KINDS.values() if kind.status == status),
            "content": content,
        }
        for status in sorted({400, 401, 403, 404, 405, 408, 413, 415, 421, 500, *statuses})
    }


def build_openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What `app.openapi` is to be."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            parts = made.setdefault("components", {}).setdefault("schemas", {})
            for kind in _BODIES:
                schema = kind.model_json_schema(ref_template=_REF)
                parts.update(schema.pop("$defs", {}))
                parts[kind.__name__] = schema
            made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"key": []}, {}]  # a service may be without keys
            app.openapi_schema = made
        return app.openapi_schema

    return describe
