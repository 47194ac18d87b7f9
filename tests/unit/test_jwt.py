"""JWTs: which are accepted, which are not, and what an issuer that misbehaves changes."""

import asyncio
import base64
import hmac
import json
import time

import pytest
from aiohttp import web
from joserfc import jwt as jose
from joserfc.jwk import ECKey, OKPKey

from mdtool.adapters.identity import discovery
from mdtool.adapters.identity import jwt as jwt_module
from mdtool.adapters.identity.authenticator import Authenticator
from mdtool.adapters.identity.config import AuthConfig
from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.core.permissions import Roles
from mdtool.services.http.listening import listening
from tests.support.issuers import (
    AUDIENCE,
    CLIENT,
    ISSUER,
    claims,
    new_key,
    provider,
    sign,
    write_jwks,
)
from tests.support.waiting import bounded

KEY = new_key()
ROLES = Roles({"trader": {"read": ["*"]}, "desk": {"read": ["AAPL"], "quota": "gold"}})


def config(**changes):
    given = {"mode": "required", "issuer": ISSUER, "audience": AUDIENCE, **changes}
    return AuthConfig(**given)


@pytest.fixture
async def known(tmp_path):
    authenticator = Authenticator(config(jwks=write_jwks(tmp_path / "jwks.json", KEY)), ROLES)
    with pytest.raises(UnknownKeyError):
        authenticator.authenticate(sign(KEY, claims()))
    await authenticator.authenticate_now(sign(KEY, claims()))
    return authenticator


async def test_a_token_names_a_principal_with_roles_and_permissions_of_its_own(known):
    own = {"roles": ["desk", "unknown"], "deny": ["TSLA"], "write": ["AAPL"]}
    principal = known.authenticate(sign(KEY, claims(mdtool=own)))
    reader = principal.access.reader("quotes")
    assert principal.name == "sub:ann"
    assert principal.quota == "gold"
    assert reader.can_read("AAPL")
    assert not reader.can_read("TSLA")
    assert principal.access.can_write("AAPL")
    assert not principal.access.can_write("MSFT")
    assert not known.authenticate(sign(KEY, claims())).access.has_feed("quotes")


@pytest.mark.parametrize("audience", [AUDIENCE, ["other", AUDIENCE]])
async def test_an_audience_may_be_one_of_several(known, audience):
    known.authenticate(sign(KEY, claims(aud=audience, nbf=time.time() - 1), typ="at+jwt"))


async def test_clocks_may_differ_by_the_leeway_only(known):
    now = time.time()
    known.authenticate(sign(KEY, claims(exp=now - 20, nbf=now + 20)))
    for wrong in ({"exp": now - 40}, {"nbf": now + 40}):
        with pytest.raises(TokenError):
            known.authenticate(sign(KEY, claims(**wrong)))


async def test_roles_are_found_where_the_issuer_has_them(tmp_path):
    jwks = write_jwks(tmp_path / "jwks.json", KEY)
    authenticator = Authenticator(config(jwks=jwks, roles_claim="realm_access.roles"), ROLES)
    token = sign(KEY, claims(realm_access={"roles": ["desk"]}))
    assert (await authenticator.authenticate_now(token)).quota == "gold"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": None},
        {"iss": "https://other.example"},
        {"iss": ISSUER + "/"},
        {"aud": None},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": {AUDIENCE: True}},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": 1},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": 10**400},
        {"nbf": 1e12},
        {"nbf": 10**400},
        {"nbf": "x"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "x" * 257},
        {"mdtool": ["read"]},
        {"mdtool": "read"},
        {"mdtool": {"read": "AAPL"}},
        {"mdtool": {"read": ["*" * 1_000]}},
        {"mdtool": {"rights": ["root"]}},
        {"mdtool": {"admin": True}},
    ],
)
async def test_wrong_claims_are_refused(known, changes):
    with pytest.raises(TokenError, match=r"^token: "):
        known.authenticate(sign(KEY, claims(**changes)))


def unsigned(header, content):
    parts = (json.dumps(header).encode(), json.dumps(content).encode())
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def wrong_tokens():
    other = new_key("one")
    good = sign(KEY, claims())
    head, body, signature = good.split(".")
    public_pem = KEY.as_pem(private=False)
    public_jwk = KEY.as_dict(private=False)
    symmetric = unsigned({"alg": "HS256", "kid": "one"}, claims())
    mac = hmac.digest(public_pem, symmetric.encode(), "sha256")
    yield "none", unsigned({"alg": "none"}, claims()) + "."
    yield "None", unsigned({"alg": "None", "kid": "one"}, claims()) + "." + signature
    mac_text = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    yield "the public key as a secret", f"{symmetric}.{mac_text}"
    yield "another key", sign(other, claims())
    yield "another key in the header", sign(other, claims(), jwk=other.as_dict(private=False))
    yield "the right key in the header", sign(KEY, claims(), jwk=public_jwk)
    yield "a URL of keys", sign(KEY, claims(), jku="http://127.0.0.1:1/keys")
    yield "a certificate", sign(KEY, claims(), x5c=["AAAA"])
    yield (
        "unknown crit",
        ".".join(
            (unsigned({"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1}, claims()), signature)
        ),
    )
    yield "a JWE's type", sign(KEY, claims(), typ="JWE")
    yield (
        "a kid of another type",
        ".".join((unsigned({"alg": "RS256", "kid": 1}, claims()), signature)),
    )
    yield (
        "changed claims",
        ".".join((head, unsigned(claims(sub="eve"), {}).split(".")[0], signature)),
    )
    yield "a cut signature", good[:-4]
    yield "no signature", f"{head}.{body}."
    yield "five parts", good + ".a.b"
    yield "100 KB", good + "A" * 100_000
    yield "100 KB of dots", "." * 100_000
    yield "nested", base64.urlsafe_b64encode(b"[" * 9_000).decode() + ".e30.AA"
    yield "garbage", "garbage"
    yield "not ASCII", "é.é.é"
    yield "empty", ""
    yield "claims that are a list", sign(KEY, [1])
    yield (
        "EdDSA by the RSA key's id",
        jose.encode(
            {"alg": "Ed25519", "kid": "one"},
            claims(),
            OKPKey.generate_key("Ed25519"),
            algorithms=["Ed25519"],
        ),
    )
    yield (
        "an unknown curve's key",
        jose.encode({"alg": "ES256", "kid": "one"}, claims(), ECKey.generate_key("P-256")),
    )


WRONG = dict(wrong_tokens())


@pytest.mark.parametrize("what", WRONG)
async def test_no_other_token_gets_in_and_no_message_shows_any_of_it(known, what):
    token = WRONG[what]
    with pytest.raises(TokenError) as caught:
        known.authenticate(token)
    assert token[-40:] not in str(caught.value) or not token
    known.authenticate(sign(KEY, claims()))


async def test_keys_of_a_set_that_are_not_valid_are_left_out(tmp_path):
    right = KEY.as_dict(private=False)
    wrong = [
        *(None, 5, [], {}, {"kty": []}, {"kty": "oct", "k": "c2Vj" * 9, "kid": "one"}),
        *({"kty": "RSA", "n": 1, "e": "AQAB"}, {"kty": "EC", "crv": {}, "x": "AA", "y": "AA"}),
        *({**right, name: value} for name in ("kid", "use", "alg") for value in (7, [], {})),
    ]
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [*wrong, right]}))
    authenticator = Authenticator(config(jwks=str(path)), ROLES)
    assert (await authenticator.authenticate_now(sign(KEY, claims()))).name == "sub:ann"


async def test_a_token_ends_with_the_key_that_signed_it(tmp_path, monkeypatch):
    monkeypatch.setattr(jwt_module, "_RETRY_S", 0.0)
    path = tmp_path / "jwks.json"
    authenticator = Authenticator(config(jwks=write_jwks(path, KEY)), ROLES)
    await authenticator.authenticate_now(sign(KEY, claims()))
    write_jwks(path, new_key("two"))
    await authenticator.refresh()
    with pytest.raises(UnknownKeyError):
        authenticator.authenticate(sign(KEY, claims()))


async def test_elliptic_curves_are_accepted(tmp_path):
    keys = [ECKey.generate_key("P-256", {"kid": "ec"}), OKPKey.generate_key("Ed25519")]
    keys[1] = OKPKey.import_key(keys[1].as_dict(private=True), {"kid": "okp"})
    authenticator = Authenticator(config(jwks=write_jwks(tmp_path / "jwks.json", *keys)), ROLES)
    for key, algorithm in zip(keys, ("ES256", "Ed25519"), strict=True):
        token = sign(key, claims(), alg=algorithm)
        assert (await authenticator.authenticate_now(token)).name == "sub:ann"


async def test_a_real_provider_with_an_outage_and_new_keys(monkeypatch):
    monkeypatch.setattr(jwt_module, "_RETRY_S", 0.0)
    with provider() as issuer:
        authenticator = Authenticator(config(issuer=issuer.issuer, audience=CLIENT), ROLES)
        with issuer.running():
            token = issuer.token("ann", mdtool={"roles": ["desk"]})
            async with bounded():
                principal = await authenticator.authenticate_now(token)
            assert (principal.name, principal.quota) == ("sub:ann", "gold")
            other = issuer.token("ben")
        async with bounded():
            await authenticator._jwts.refresh()
        authenticator.authenticate(other)  # by the last keys that were read
        with issuer.running():
            rotated = issuer.token("cat")
            with pytest.raises(TokenError):
                authenticator.authenticate(rotated)
            async with bounded():
                principal = await authenticator.authenticate_now(rotated)
            assert principal.name == "sub:cat"


async def answer_with(content, **kind):
    app = web.Application()
    requests = []

    async def serve(request):
        requests.append(request.path)
        answer = content(request)
        return answer if isinstance(answer, web.StreamResponse) else web.Response(**answer)

    app.router.add_get("/{path:.*}", serve)
    return app, requests


BAD = {
    "500": lambda _: {"status": 500},
    "HTML": lambda _: {"text": "<html>", "content_type": "text/html"},
    "a redirect": lambda _: {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
    "another issuer": lambda _: {"text": '{"issuer": "https://x", "jwks_uri": "http://x"}'},
    "no object": lambda _: {"text": "[]"},
    "endless": lambda _: {"body": b"[" * (2 << 20)},
}


@pytest.mark.parametrize("kind", BAD)
async def test_an_issuer_that_misbehaves_lets_nobody_in(kind, caplog):
    app, requests = await answer_with(BAD[kind])
    async with listening(app, "127.0.0.1", 0) as address, bounded():
        authenticator = Authenticator(config(issuer=f"http://{address}"), ROLES)
        for _ in range(3):
            with pytest.raises(UnknownKeyError):
                await authenticator.authenticate_now(sign(KEY, claims()))
    assert len(requests) == 1  # unknown keys do not make more
    assert "[auth] issuer: http://" in caplog.text


async def test_an_issuer_that_hangs_is_given_up(monkeypatch, caplog):
    monkeypatch.setattr(discovery, "_FETCH_S", 0.05)

    async def hang(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server, bounded():
        port = server.sockets[0].getsockname()[1]
        authenticator = Authenticator(config(issuer=f"http://127.0.0.1:{port}"), ROLES)
        with pytest.raises(UnknownKeyError):
            await authenticator.authenticate_now(sign(KEY, claims()))
    assert "no answer within" in caplog.text
