"""Bodies of the requests for URLs by the gateway, and of their answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sandboxes.models.requests import MAX_SECONDS

# A port in a sandbox, and how long a URL of it is valid.
PortNumber = Annotated[int, Field(ge=1, le=65535)]
UrlSeconds = Annotated[int, Field(ge=1, le=MAX_SECONDS)]


class UrlRequest(BaseModel):
    """A further URL of a sandbox."""

    model_config = ConfigDict(frozen=True)

    port: PortNumber | None = Field(
        default=None, description="Port in the sandbox. Absent: that of its server.", examples=[3000]
    )
    ttl_seconds: UrlSeconds | None = Field(
        default=None,
        description="Seconds until the URL ends. Absent: it ends with the sandbox, or with all its URLs.",
        examples=[600],
    )


class SandboxUrl(BaseModel):
    """A URL of a sandbox, by the gateway."""

    url: str = Field(
        description="URL; any path below it leads to the port. Whoever has it may use it.",
        examples=["http://127.0.0.1:8003/s/abc/3000.1795341600.Zm9yIHRoaXMgZXhhbXBsZSBvbmx5ISEh"],
    )
    port: int = Field(description="Port in the sandbox.", examples=[3000])
    expires_at: str | None = Field(
        description="End of the URL; null: that of the sandbox. RFC 3339, UTC.", examples=["2026-11-22T10:00:00Z"]
    )
