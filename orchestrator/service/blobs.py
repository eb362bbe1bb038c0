"""Blobs: the VHDs that builds distributed, readable as Azure Storage has them (path style, ranges, read-only SAS)."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

ACCOUNT = "aib"
VERSION = "2021-08-06"
SAS_SECONDS = 30 * 24 * 3600
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Blobs:
    """Read access to the files of one folder: `<folder>/<container>/<name>`, below /blob/aib.

    `key` signs the SAS; what another key signed, or a changed or expired SAS, is refused as Azure does.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key

    @property
    def routes(self) -> list[Route]:
        """HEAD and GET of a blob."""
        return [Route(f"/blob/{ACCOUNT}/{{container}}/{{name:path}}", self._blob, methods=["GET", "HEAD"])]

    def sas_uri(self, origin: str, container: str, name: str) -> str:
        """The address of a blob with a SAS that reads it for 30 days."""
        expiry = datetime.fromtimestamp(time.time() + SAS_SECONDS, UTC).strftime(_TIME)
        fields = {"sv": VERSION, "sr": "b", "sp": "r", "se": expiry}
        query = urlencode({**fields, "sig": self._signature(container, name, fields)})
        return f"{origin}/blob/{ACCOUNT}/{quote(container)}/{quote(name)}?{query}"

    def _signature(self, container: str, name: str, fields: Mapping[str, str]) -> str:
        text = "\n".join([container, name, *(f"{key}={fields[key]}" for key in sorted(fields))])
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def allows(self, container: str, name: str, query: Mapping[str, str]) -> bool:
        """Whether a query is a SAS of ours for reading this blob now."""
        fields = {key: query.get(key, "") for key in ("sv", "sr", "sp", "se")}
        if not hmac.compare_digest(query.get("sig", ""), self._signature(container, name, fields)):
            return False
        return datetime.strptime(fields["se"], _TIME).replace(tzinfo=UTC) > datetime.now(UTC)

    async def _blob(self, request: Request) -> Response:
        container, name = request.path_params["container"], request.path_params["name"]
        if not self.allows(container, name, request.query_params):
            code = "AuthenticationFailed" if "sig" in request.query_params else "PublicAccessNotPermitted"
            return _error(request, 403 if "sig" in request.query_params else 409, code, "The SAS does not allow this.")
        path = self._folder / container / name
        # A signed name is one that this server chose; a link or a folder in its place is still not followed.
        if not path.is_file() or not path.resolve().is_relative_to(self._folder.resolve()):
            return _error(request, 404, "BlobNotFound", "The specified blob does not exist.")
        stat = path.stat()
        headers = {
            "x-ms-version": VERSION,
            "x-ms-blob-type": "PageBlob",
            "x-ms-creation-time": formatdate(stat.st_mtime, usegmt=True),
            "x-ms-lease-state": "available",
            "x-ms-lease-status": "unlocked",
            "x-ms-server-encrypted": "false",
        }
        if (wanted := request.headers.get("x-ms-range")) and "range" not in request.headers:
            # The SDK asks by this header alone; it means what `Range` means.
            request.scope["headers"] = [*request.scope["headers"], (b"range", wanted.encode("latin-1"))]
        return FileResponse(path, media_type="application/octet-stream", headers=headers)


def _error(request: Request, status: int, code: str, message: str) -> Response:
    body = (
        f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>'
    )
    headers = {"x-ms-error-code": code, "x-ms-version": VERSION}
    return Response("" if request.method == "HEAD" else body, status, headers, media_type="application/xml")
