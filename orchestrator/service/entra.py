"""The sign-in that Azure clients expect: cloud metadata, OpenID configuration, tokens (facts: arm-and-guest 3 and 4).

Anyone on this machine's loopback may sign in under any name; what a token is good for is the server's business. With
`secret` (a server that listens beyond loopback) a client must know it. Tokens are signed, so that nobody makes one up.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hypervisor.errors import HostError
from orchestrator.record import files

TENANT = "00000000-0000-0000-0000-00000000a1b0"
LIFETIME_SECONDS = 24 * 3600
LONGEST_FORM = 64 * 1024
_KEY_ID = "aib"
_NAMESPACE = uuid.UUID("5d3d8b6b-8f0e-4c56-9df5-0c6d3c1b7a11")


class BadToken(ValueError):
    """A token that this server did not give out, or that is over; the message says which."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token was given to."""

    name: str
    tenant: str
    audience: str


class Entra:
    """Gives out and checks tokens. `secret`: what a client must know; None asks for nothing.

    With `key_file` the key outlives the server, and with it the tokens that clients keep: but not those that were
    given out under another secret. Raises `HostError` when the file cannot be used.
    """

    def __init__(self, secret: str | None = None, key_file: Path | None = None) -> None:
        self._secret = secret
        self._key = _kept_key(key_file) if key_file else _new_key()
        public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._era = hmac.new(public, (secret or "").encode(), hashlib.sha256).hexdigest()[:16]

    def derived(self, purpose: str) -> bytes:
        """32 secret bytes for another purpose, the same as long as the key is the same."""
        private = self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return hmac.digest(private, purpose.encode(), "sha256")

    def token(self, name: str, audience: str, issuer: str, tenant: str = TENANT) -> str:
        """A signed bearer token (RS256) for `audience`, good for a day."""
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": issuer,
            "iat": now,
            "nbf": now - 300,
            "exp": now + LIFETIME_SECONDS,
            "appid": name,
            "idtyp": "app",
            "oid": object_id(name),
            "sub": object_id(name),
            "tid": tenant,
            "ver": "1.0",
            "era": self._era,
        }
        signed = f"{_part({'alg': 'RS256', 'kid': _KEY_ID, 'typ': 'JWT'})}.{_part(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"

    def caller(self, token: str) -> Caller:
        """Who shows this token; raises `BadToken`."""
        signed, _, signature = token.rpartition(".")
        try:
            self._key.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_decoded(signed.partition(".")[2]))
        except (InvalidSignature, ValueError) as error:
            raise BadToken("the access token is not one of this server (was the server started anew?)") from error
        if claims.get("era") != self._era:
            raise BadToken("the access token is from before the token of this server was changed")
        if claims["exp"] < time.time():
            raise BadToken("the access token has expired")
        return Caller(claims["appid"], claims["tid"], claims["aud"])

    @property
    def routes(self) -> list[Route]:
        """Metadata, OpenID configuration, keys and tokens, as a cloud has them and as ADFS has them."""
        adfs = [
            Route(f"/adfs{more}/.well-known/openid-configuration", self._configuration)
            for more in ("", "/v2.0", "/adfs/v2.0")
        ]
        return [
            Route("/metadata/endpoints", self._endpoints),
            Route("/metadata/identity/oauth2/token", self._managed_identity),
            Route("/msi/token", self._managed_identity),
            *adfs,
            Route("/adfs/oauth2/token", self._token, methods=["POST"]),
            Route("/adfs/oauth2/v2.0/token", self._token, methods=["POST"]),
            Route("/{tenant}/discovery/v2.0/keys", self._keys),
            Route("/{tenant}/v2.0/.well-known/openid-configuration", self._configuration),
            Route("/{tenant}/.well-known/openid-configuration", self._configuration),
            Route("/{tenant}/oauth2/v2.0/token", self._token, methods=["POST"]),
            Route("/{tenant}/oauth2/token", self._token, methods=["POST"]),
        ]

    def _endpoints(self, request: Request) -> Response:
        base = origin(request)
        cloud = {
            "name": "aib",
            "portal": f"{base}/ui",
            "resourceManager": f"{base}/",
            "activeDirectoryGraphResourceId": f"{base}/",
            "authentication": {
                "loginEndpoint": base,
                "audiences": [f"{base}/", "https://management.azure.com/", "https://management.core.windows.net/"],
                "tenant": "common",
                "identityProvider": "AAD",
            },
            "microsoftGraphResourceId": base,
            "vmImageAliasDoc": f"{base}/metadata/vm-image-aliases",
            "suffixes": {"storage": "core.windows.net"},
        }
        old = request.query_params.get("api-version", "") < "2019-05-01"
        return JSONResponse(cloud if old else [cloud] if request.query_params.get("list") else cloud)

    def _configuration(self, request: Request) -> Response:
        tenant = request.path_params.get("tenant", "adfs")
        place = f"{origin(request)}/{tenant}"
        return JSONResponse(
            {
                "issuer": f"{place}/v2.0" if tenant != "adfs" else place,
                "authorization_endpoint": f"{place}/oauth2/v2.0/authorize",
                "token_endpoint": f"{place}/oauth2/v2.0/token",
                "device_authorization_endpoint": f"{place}/oauth2/v2.0/devicecode",
                "jwks_uri": f"{place}/discovery/v2.0/keys",
                "response_types_supported": ["token"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            }
        )

    def _keys(self, _: Request) -> Response:
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": _KEY_ID, "n": _number(numbers.n), "e": "AQAB"}
        return JSONResponse({"keys": [key]})

    async def _token(self, request: Request) -> Response:
        form = await _form(request)
        tenant = request.path_params.get("tenant", "adfs")
        if form.get("grant_type") != "client_credentials":
            return _refused("unsupported_grant_type", "only client_credentials: sign in with a service principal")
        if not form.get("client_id"):
            return _refused("invalid_request", "client_id is missing")
        if self._secret is not None and not _same(form.get("client_secret", ""), self._secret):
            return _refused("invalid_client", "wrong client_secret: it is the token of this server")
        scope = form.get("scope") or form.get("resource") or f"{origin(request)}/.default"
        audience = scope.split(" ")[0].removesuffix(".default")
        token = self.token(form["client_id"], audience, f"{origin(request)}/{tenant}", tenant)
        return JSONResponse(
            {
                "token_type": "Bearer",
                "expires_in": LIFETIME_SECONDS,
                "ext_expires_in": LIFETIME_SECONDS,
                "access_token": token,
            },
            headers={"Cache-Control": "no-store"},
        )

    def _managed_identity(self, request: Request) -> Response:
        """As App Service and the instance metadata service answer; a page of a browser can set neither header."""
        known = request.headers.get("x-identity-header"), request.headers.get("metadata")
        if known[0] is None and (known[1] or "").lower() != "true":
            return _refused("invalid_request", "Required metadata header not specified")
        if self._secret is not None and not _same(known[0] or "", self._secret):
            return _refused("invalid_client", "wrong X-IDENTITY-HEADER: it is the token of this server")
        resource = request.query_params.get("resource")
        if not resource:
            return _refused("invalid_request", "resource is missing")
        name = request.query_params.get("client_id") or "system-assigned"
        expires = int(time.time()) + LIFETIME_SECONDS
        return JSONResponse(
            {
                "access_token": self.token(name, resource, f"{origin(request)}/{TENANT}"),
                "client_id": name,
                "expires_in": str(LIFETIME_SECONDS),
                "expires_on": str(expires),
                "resource": resource,
                "token_type": "Bearer",
            },
            headers={"Cache-Control": "no-store"},
        )


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _kept_key(path: Path) -> rsa.RSAPrivateKey:
    """The key in `path`, made when there is none; only its owner can read it."""
    with files.translating("reading", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            made = _new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            files.publish(path, made)
        data = path.read_bytes()
    try:
        key = load_pem_private_key(data, None)
    except ValueError as error:
        raise HostError(f"{path} is damaged: {error}", hint="Remove it; clients then sign in anew.") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise HostError(f"{path} holds no RSA key", hint="Remove it; clients then sign in anew.")
    return key


def object_id(name: str) -> str:
    """The id of the service principal that signs in under this name."""
    return str(uuid.uuid5(_NAMESPACE, name))


def _same(given: str, known: str) -> bool:
    """Compared in constant time; letters beyond ASCII are no reason to fail."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), known.encode())


def origin(request: Request) -> str:
    """`https://127.0.0.1:8443`: how this client reaches the server."""
    return f"{request.url.scheme}://{request.url.netloc}"


async def _form(request: Request) -> Mapping[str, str]:
    """A small urlencoded form; too large or undecodable ones are empty, and so refused for what they lack."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            return {}
    form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    values = {name: given[-1] for name, given in form.items()}
    scheme, _, basic = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic" and "client_id" not in values:
        try:
            name, _, secret = base64.b64decode(basic).decode().partition(":")
        except ValueError:
            return values
        values |= {"client_id": name, "client_secret": secret}
    return values


def _refused(code: str, description: str) -> Response:
    return JSONResponse({"error": code, "error_description": description}, 401 if code == "invalid_client" else 400)


def _part(value: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _number(value: int) -> str:
    return _encoded(value.to_bytes((value.bit_length() + 7) // 8))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
