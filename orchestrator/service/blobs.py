"""Blobs: the VHDs that builds distributed, readable as Azure Storage has them (path style, ranges, read-only SAS)."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError

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
        given = query.get("sig", "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(given, self._signature(container, name, fields).encode()):
            return False
        return datetime.strptime(fields["se"], _TIME).replace(tzinfo=UTC) > datetime.now(UTC)

    def path_of(self, container: str, name: str) -> Path:
        """The file of a blob; `ArmError` 404. A link or a folder in its place is not followed."""
        path = self._file(container, name)
        if path is None:
            raise ArmError(404, "BlobNotFound", "The specified blob does not exist.", target="blobUri")
        return path

    def address(self, origin: str, uri: str) -> str:
        """A `file://` URI of the folder as an address with a SAS; any other URI as it is."""
        parts = urlsplit(uri)
        path = Path(unquote(parts.path))
        if parts.scheme != "file" or not path.is_relative_to(self._folder):
            return uri
        container, *name = path.relative_to(self._folder).parts
        return self.sas_uri(origin, container, "/".join(name)) if name else uri

    def _file(self, container: str, name: str) -> Path | None:
        path = self._folder / container / name
        try:
            inside = path.is_file() and path.resolve().is_relative_to(self._folder.resolve())
        except (OSError, ValueError):  # a name that is too long, or holds a zero byte
            return None
        return path if inside else None

    async def _blob(self, request: Request) -> Response:
        container, name = request.path_params["container"], request.path_params["name"]
        if not self.allows(container, name, request.query_params):
            code = "AuthenticationFailed" if "sig" in request.query_params else "PublicAccessNotPermitted"
            return _error(request, 403 if "sig" in request.query_params else 409, code, "The SAS does not allow this.")
        path = self._file(container, name)
        if path is None:
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


def of(context: Context) -> Blobs:
    """The blobs of a server: the VHDs of its store."""
    return Blobs(context.store.home / "vhds", context.entra.derived("blob sas"))


def routes(context: Context) -> list[BaseRoute]:
    """The area of the blob endpoint."""
    return [*of(context).routes]


def _error(request: Request, status: int, code: str, message: str) -> Response:
    body = (
        f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>'
    )
    headers = {"x-ms-error-code": code, "x-ms-version": VERSION}
    return Response("" if request.method == "HEAD" else body, status, headers, media_type="application/xml")
