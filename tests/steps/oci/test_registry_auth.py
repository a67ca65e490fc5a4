from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from registry_fixture import PASSWORD, USER, Answer, Front, Registry, Request

from steps.oci import credentials, reference, registry, registry_azure
from steps.oci.oci_layout import Image
from steps.oci.registry_auth import parse_challenges
from steps.runtime.errors import BadInput, StepError

pytestmark = pytest.mark.usefixtures("docker_config")
LogIn = Callable[..., None]
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def ref(text: str) -> reference.Reference:
    return reference.parse(text)


def test_echoed_credentials_are_hidden(image: Image, front: Front, log_in: LogIn) -> None:
    log_in(front.address)

    def before(request: Request) -> Answer:
        sent = request.headers.get("authorization", "nothing")
        body = json.dumps({"errors": [{"code": "DENIED", "message": f"got {sent} {PASSWORD}"}]}).encode()
        return Answer(401, {"WWW-Authenticate": 'Basic realm="x"', "Content-Type": "application/json"}, body)

    front.before = before
    with pytest.raises(BadInput) as caught:
        registry.pull_image(ref(f"{front.address}/app:1"), image.layout.parent / "back")
    assert "DENIED: got Basic *** ***" in str(caught.value)
    assert PASSWORD not in str(caught.value) and BASIC not in repr(caught.value)
    assert len(front.seen) == 2


class TokenServer:
    """Guards a ``Front`` with tokens, as docker's hub and most clouds do; the token endpoint is the front's too."""

    def __init__(self, front: Front, *, anonymous: str = "") -> None:
        self.front, self.anonymous = front, anonymous
        self.valid: dict[str, str] = {}
        self.issued: list[str] = []
        front.before = self.answer

    def answer(self, request: Request) -> Answer | None:
        if urlsplit(request.path).path == "/token":
            return self.issue(request)
        granted = self.valid.get(request.headers.get("authorization", "").removeprefix("Bearer "), "")
        needed = "pull" if request.method in ("GET", "HEAD") else "push"
        if needed in granted:
            request.headers.pop("authorization")
            return None
        scope = f"repository:{request.path.split('/')[2]}:{needed}"
        realm = f'Bearer realm="http://{self.front.address}/token",service="a, registry",scope="{scope}"'
        return Answer(401, {"WWW-Authenticate": realm})

    def issue(self, request: Request) -> Answer:
        fields = parse_qs(urlsplit(request.path).query if request.method == "GET" else request.body.decode())
        assert fields["service"] == ["a, registry"]
        actions = fields["scope"][0].rpartition(":")[2]
        known = request.headers.get("authorization") == f"Basic {BASIC}"
        refreshed = fields.get("refresh_token") == ["identity"] and fields["grant_type"] == ["refresh_token"]
        if "authorization" in request.headers and not known:
            return Answer(401)
        token = f"token-{len(self.issued)}"
        self.issued.append(actions)
        self.valid[token] = actions if known or refreshed else self.anonymous
        return Answer(200, {}, json.dumps({"access_token" if refreshed else "token": token}).encode())


def test_bearer_token_with_password(image: Image, front: Front, log_in: LogIn) -> None:
    log_in(front.address)
    tokens = TokenServer(front)
    registry.push_image(image.layout, ref(f"{front.address}/tokens:1"))
    assert tokens.issued == ["pull,push"]


def test_expired_token_is_renewed(image: Image, front: Front, log_in: LogIn) -> None:
    log_in(front.address)
    tokens = TokenServer(front)
    front.after = lambda request, answer: (tokens.valid.clear(), answer)[1] if request.method == "PUT" else answer
    registry.push_image(image.layout, ref(f"{front.address}/expiring:1"))
    assert len(tokens.issued) == 4


def test_bearer_token_without_password(image: Image, front: Front, open_registry: Registry, tmp_path: Path) -> None:
    registry.push_image(image.layout, ref(f"{open_registry.address}/public:1"))
    TokenServer(front, anonymous="pull")
    assert registry.pull_image(ref(f"{front.address}/public:1"), tmp_path / "back") == image.manifest.digest
    with pytest.raises(BadInput, match="does not allow a client without credentials to push"):
        registry.push_image(image.layout, ref(f"{front.address}/other:1"))


def test_identity_token(image: Image, front: Front, docker_config: Path) -> None:
    entry = {"auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(), "identitytoken": "identity"}
    (docker_config / "config.json").write_text(json.dumps({"auths": {f"https://{front.address}": entry}}))
    TokenServer(front)
    registry.push_image(image.layout, ref(f"{front.address}/identity:1"))
    assert {r.method for r in front.seen if r.path.startswith("/token")} == {"POST"}


def test_wrong_password_at_the_token_server(image: Image, front: Front, log_in: LogIn) -> None:
    log_in(front.address, password="wrong-one")
    TokenServer(front)
    with pytest.raises(BadInput, match="does not allow these credentials to push to") as caught:
        registry.push_image(image.layout, ref(f"{front.address}/tokens:1"))
    assert "wrong-one" not in str(caught.value)


def test_password_is_not_sent_to_a_plain_token_server(image: Image, front: Front, log_in: LogIn) -> None:
    log_in(front.address)
    challenge = 'Bearer realm="http://tokens.example.com/t",service="s"'
    front.before = lambda request: Answer(401, {"WWW-Authenticate": challenge})
    with pytest.raises(StepError, match=r"'http://tokens\.example\.com/t', which is not https"):
        registry.push_image(image.layout, ref(f"{front.address}/app:1"))


def test_upload_elsewhere_gets_no_credentials(
    image: Image, front: Front, open_registry: Registry, log_in: LogIn
) -> None:
    log_in(front.address)
    storage = Front(open_registry.address)

    def challenge(request: Request) -> Answer | None:
        known = request.headers.get("authorization") == f"Basic {BASIC}"
        return None if known else Answer(401, {"WWW-Authenticate": "Basic realm=x"})

    def elsewhere(request: Request, answer: Answer) -> Answer:
        headers = {k: v.replace(front.address, storage.address) for k, v in answer.headers.items()}
        return Answer(answer.status, headers, answer.body)

    front.before, front.after = challenge, elsewhere
    try:
        registry.push_image(image.layout, ref(f"{front.address}/elsewhere:1"))
    finally:
        storage.close()
    assert [r.method for r in storage.seen] == ["PUT", "PUT"]
    assert all("authorization" not in r.headers for r in storage.seen)


def test_netrc_is_not_used(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not registry.manifest_exists(ref(f"{front.address}/app:1"))
    assert all("authorization" not in r.headers for r in front.seen)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", {}),
        ("Basic", {"basic": {}}),
        ('Basic realm="Registry Realm"', {"basic": {"realm": "Registry Realm"}}),
        ("basic realm=x", {"basic": {"realm": "x"}}),
        (
            'Bearer realm="https://a/t?x=1",service="a, b",scope="repository:x:pull,push"',
            {"bearer": {"realm": "https://a/t?x=1", "service": "a, b", "scope": "repository:x:pull,push"}},
        ),
        (
            'Basic realm="a \\"b\\"", Bearer realm="https://t", error = "invalid_token"',
            {"basic": {"realm": 'a "b"'}, "bearer": {"realm": "https://t", "error": "invalid_token"}},
        ),
        ('Negotiate, Basic realm="x"', {"negotiate": {}, "basic": {"realm": "x"}}),
    ],
)
def test_challenges(header: str, found: dict[str, dict[str, str]]) -> None:
    assert parse_challenges(header) == found


def test_redirects_to_other_hosts_carry_no_credentials(
    image: Image, front: Front, log_in: LogIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(front.address)
    registry.push_image(image.layout, ref(f"{front.address}/moved:1"))
    (tmp_path / "netrc").write_text("default login me password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    other = (
        front.address.replace("127.0.0.1", "localhost")
        if "127" in front.address
        else "127.0.0.1:" + front.address.rpartition(":")[2]
    )
    front.seen.clear()

    def before(request: Request) -> Answer | None:
        host = request.headers.get("host", "")
        if "/blobs/" in request.path and host != other:
            if "authorization" not in request.headers:
                return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
            return Answer(307, {"Location": f"http://{other}{request.path}"}, b"")
        assert host != other or "authorization" not in request.headers, "credentials at another host"
        request.headers.pop("authorization", None)
        return None

    front.before = before
    registry.pull_image(ref(f"{front.address}/moved:1"), tmp_path / "back")


def test_hosts_are_compared_without_case_and_default_port(tmp_path: Path) -> None:
    for text in ("R.example.com/a", "r.example.com:443/a", "R.EXAMPLE.com:443/a"):
        assert ref(text).host == "r.example.com"
        (tmp_path / "config.json").write_text(json.dumps({"auths": {"https://r.Example.com": {"auth": BASIC}}}))
        assert credentials.find(ref(text), tmp_path) is not None
    assert registry_azure.is_azure("Mine.AzureCR.io:443")
    assert ref("r.example.com:5000/a").host == "r.example.com:5000"


def test_bodies_are_not_unpacked(image: Image, front: Front, tmp_path: Path) -> None:
    registry.push_image(image.layout, ref(f"{front.address}/packed:1"))

    def after(request: Request, answer: Answer) -> Answer:
        if request.method == "GET" and "/manifests/" in request.path:
            body = gzip.compress(bytes(50_000_000))
            return Answer(200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, body)
        return answer

    front.after = after
    with pytest.raises(StepError, match="is not a JSON object"):
        registry.pull_image(ref(f"{front.address}/packed:1"), tmp_path / "back")


def test_a_token_response_is_limited(front: Front, tmp_path: Path) -> None:
    def before(request: Request) -> Answer:
        if request.path.startswith("/token"):
            body = gzip.compress(b'{"token": "' + b"x" * 20_000_000 + b'"}')
            return Answer(200, {"Content-Encoding": "gzip"}, body)
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{front.address}/token"'}, b"")

    front.before = before
    with pytest.raises(StepError, match="returned no token"):
        registry.pull_image(ref(f"{front.address}/app:1"), tmp_path / "back", wait=lambda seconds: None)
