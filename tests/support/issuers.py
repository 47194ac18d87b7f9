"""Issuers of JWTs: a real OpenID provider in a process, and keys to sign anything with."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from joserfc import jws
from joserfc.jwk import RSAKey

from mdtool.core.tcp import ReservedPort
from tests.support.processes import ChildProcess
from tests.support.waiting import wait_until

ISSUER = "https://issuer.example"
AUDIENCE = "mdtool"
CLIENT = "mdtool"
_REDIRECT = "http://127.0.0.1/signed-in"


def new_key(kid="one"):
    return RSAKey.generate_key(2048, {"kid": kid})


def write_jwks(path, *keys):
    path.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in keys]}))
    return str(path)


def claims(**changes):
    """Claims that are valid, but for the changes; None leaves one out."""
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 600, **changes}
    return {name: value for name, value in found.items() if value is not None}


def sign(key, content, **header):
    """A token with any claims, and any header besides."""
    members = {"alg": "RS256", "kid": key.kid, **header}
    members = {name: value for name, value in members.items() if value is not None}
    return jws.serialize_compact(members, json.dumps(content), key, algorithms=[members["alg"]])


class Provider:
    """An OpenID provider. One that is started again has other keys."""

    def __init__(self, port):
        self.issuer = f"http://127.0.0.1:{port}"
        self._port = port

    @contextlib.contextmanager
    def running(self):
        command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(self._port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with ChildProcess(command, **quiet) as process:
            try:
                wait_until(self._answers)
                yield
            finally:
                process.terminate()

    def token(self, subject, **user_claims):
        """An ID token of a user, by the authorization code flow."""
        self._send("PUT", f"/users/{subject}", json.dumps(user_claims), "application/json")
        query = urllib.parse.urlencode(
            {
                "client_id": CLIENT,
                "redirect_uri": _REDIRECT,
                "response_type": "code",
                "scope": "openid",
            }
        )
        form = urllib.parse.urlencode({"sub": subject})
        where = self._send("POST", f"/oauth2/authorize?{query}", form).headers["Location"]
        (code,) = urllib.parse.parse_qs(urllib.parse.urlsplit(where).query)["code"]
        form = urllib.parse.urlencode(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": _REDIRECT,
                "client_id": CLIENT,
                "client_secret": "any",
            }
        )
        with self._send("POST", "/oauth2/token", form) as response:
            return json.load(response)["id_token"]

    def _send(self, method, path, body, kind="application/x-www-form-urlencoded"):
        request = urllib.request.Request(
            self.issuer + path, body.encode(), {"Content-Type": kind}, method=method
        )
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        try:
            return opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            if error.code in {302, 303}:
                return error
            raise

    def _answers(self):
        with contextlib.suppress(OSError):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                f"{self.issuer}/jwks", timeout=60
            ).close()
            return True
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args):
        return None


@contextlib.contextmanager
def provider():
    with ReservedPort("127.0.0.1") as reserved:
        yield Provider(reserved.port)
