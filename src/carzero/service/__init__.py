"""Scores and maps over HTTP, and a page that asks for them; see docs/service.md.

Needs the extra `serve`, except for `import`.
"""

from carzero.core.optional import require_extra

with require_extra("The service needs FastAPI, uvicorn and others", "serve"):
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn  # noqa: F401

from carzero.service.app import create_app
from carzero.service.settings import ApiKeys, Limits, ServiceSettings, name_weights

__all__ = ["ApiKeys", "Limits", "ServiceSettings", "create_app", "name_weights"]
