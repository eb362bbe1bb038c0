"""Signing in as Azure clients do: metadata, configuration, tokens of service principals and managed identities."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import pytest
import requests
from starlette.applications import Starlette

from orchestrator.service.entra import LIFETIME_SECONDS, BadToken, Entra
from tests.contract.serving import serving

CLIENT = {"grant_type": "client_credentials", "client_id": "me", "client_secret": "s3cret"}


@pytest.fixture(scope="module")
def entra() -> Entra:
    return Entra(secret="s3cret")


@pytest.fixture(scope="module")
def origin(entra: Entra) -> Iterator[str]:
    with serving(Starlette(routes=entra.routes)) as address:
        yield address


def ask_token(address: str, **form: str) -> requests.Response:
    return requests.post(address, data={**CLIENT, **form}, timeout=10)


def test_the_metadata_lead_to_the_token(origin: str, entra: Entra) -> None:
    cloud = requests.get(f"{origin}/metadata/endpoints?api-version=2022-09-01", timeout=10).json()
    assert cloud["resourceManager"] == f"{origin}/"
    login = cloud["authentication"]["loginEndpoint"]
    configuration = requests.get(f"{login}/my-tenant/v2.0/.well-known/openid-configuration", timeout=10).json()
    answer = ask_token(configuration["token_endpoint"], scope=cloud["authentication"]["audiences"][0] + ".default")
    assert answer.json()["token_type"] == "Bearer"
    caller = entra.caller(answer.json()["access_token"])
    assert (caller.name, caller.tenant, caller.audience) == ("me", "my-tenant", f"{origin}/")


def test_adfs_finds_its_token_endpoint(origin: str) -> None:
    for path in ("/adfs/.well-known/openid-configuration", "/adfs/adfs/v2.0/.well-known/openid-configuration"):
        configuration = requests.get(origin + path, timeout=10).json()
        assert configuration["issuer"] == f"{origin}/adfs"
        assert ask_token(configuration["token_endpoint"], scope="x").status_code == 200


def test_the_key_that_signs_is_published(origin: str) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    def number(text: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(text + "=="))

    key = requests.get(f"{origin}/t/discovery/v2.0/keys", timeout=10).json()["keys"][0]
    token = ask_token(f"{origin}/t/oauth2/v2.0/token", scope="x").json()["access_token"]
    signed, _, signature = token.rpartition(".")
    public = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
    data = base64.urlsafe_b64decode(signature + "==")
    public.verify(data, signed.encode(), padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"client_secret": "guess"}, 401, "invalid_client"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"client_id": ""}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"padding": "x" * 70_000}, 400, "unsupported_grant_type"),
    ],
    ids=["wrong-secret", "no-secret", "no-client", "other-grant", "huge"],
)
def test_who_may_not_sign_in_is_told(origin: str, form: dict[str, str], status: int, code: str) -> None:
    answer = ask_token(f"{origin}/t/oauth2/v2.0/token", **form)
    assert (answer.status_code, answer.json()["error"]) == (status, code)


def test_managed_identities_need_their_header(origin: str, entra: Entra) -> None:
    address = f"{origin}/msi/token?api-version=2019-08-01&resource=https://management.azure.com/"
    assert requests.get(address, timeout=10).status_code == 400
    assert requests.get(address, headers={"X-IDENTITY-HEADER": "guess"}, timeout=10).status_code == 401
    answer = requests.get(address, headers={"X-IDENTITY-HEADER": "s3cret"}, timeout=10).json()
    assert entra.caller(answer["access_token"]).audience == "https://management.azure.com/"
    assert int(answer["expires_on"]) > time.time() + LIFETIME_SECONDS - 60


def test_the_metadata_service_of_a_vm_gives_tokens() -> None:
    entra = Entra()
    with serving(Starlette(routes=entra.routes)) as origin:
        address = f"{origin}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r&client_id=c"
        assert requests.get(address, timeout=10).status_code == 400
        answer = requests.get(address, headers={"Metadata": "true"}, timeout=10).json()
    assert entra.caller(answer["access_token"]).name == "c"


def test_only_our_unchanged_fresh_tokens_count(entra: Entra, monkeypatch: pytest.MonkeyPatch) -> None:
    token = entra.token("me", "aud", "iss")
    head, claims, signature = token.split(".")
    other = json.loads(base64.urlsafe_b64decode(claims + "=="))
    other["appid"] = "somebody else"
    forged = base64.urlsafe_b64encode(json.dumps(other).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for bad in (
        f"{head}.{forged}.{signature}",
        f"{none}.{claims}.",
        Entra().token("me", "aud", "iss"),
        "x",
        "",
        "ä.b.c",
    ):
        with pytest.raises(BadToken, match="not one of this server"):
            entra.caller(bad)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME_SECONDS + 1)
    with pytest.raises(BadToken, match="expired"):
        entra.caller(token)
