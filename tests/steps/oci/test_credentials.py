from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from steps.oci import credentials, reference, secret_volume
from steps.oci.credentials import Credentials
from steps.runtime.errors import BadInput, StepError


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(folder: Path, config: Any, name: str = "config.json") -> None:
    (folder / name).write_text(config if isinstance(config, str) else json.dumps(config))


def find(image: str) -> Credentials | None:
    return credentials.find(reference.parse(image))


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": b64("me:pass:with:colons")},
        {"username": "me", "password": "pass:with:colons"},
        {"auth": b64("me:pass:with:colons"), "email": "me@example.com"},
    ],
)
def test_forms_of_an_entry(docker_config: Path, entry: dict[str, str]) -> None:
    write(docker_config, {"auths": {"r.io": entry}})
    assert find("r.io/app") == Credentials("me", "pass:with:colons")
    assert find("other.io/app") is None


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("r.io:5000", "r.io:5000/app", True),
        ("r.io", "r.io:5000/app", False),
        ("https://r.io", "r.io/app", True),
        ("https://r.io/v2/", "r.io/app", True),
        ("https://index.docker.io/v1/", "app", True),
        ("docker.io", "team/app", True),
        ("r.io/team", "r.io/team/app", True),
        ("r.io/team", "r.io/teams/app", False),
    ],
)
def test_keys(docker_config: Path, key: str, image: str, fits: bool) -> None:
    write(docker_config, {"auths": {key: {"auth": b64("me:pass")}}})
    assert (find(image) is not None) is fits


def secret_files(*configs: Any) -> dict[str, Any]:
    """Return the files of Secrets by the names that the volume gives them."""
    sources = secret_volume.volume_source([f"secret-{index}" for index in range(len(configs))])["projected"]["sources"]
    return {
        source["secret"]["items"][0]["path"]: config
        for source, config in zip(sources, configs, strict=True)
        if config is not None
    }


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ([{"r.io": "first"}, {"other.io": "second"}], {"r.io/app": "first", "other.io/app": "second"}),
        ([{"r.io": "first"}, {"r.io": "second"}], {"r.io/app": "first"}),
        ([{"r.io": "first"}, {"https://r.io": "second"}], {"r.io/app": "first"}),
        ([{"r.io": "first"}, {"r.io/team": "second"}], {"r.io/app": "first", "r.io/team/app": "second"}),
        ([None, {"r.io": "second"}], {"r.io/app": "second"}),
        ([{}] * 10 + [{"r.io": "eleventh"}, {"r.io": "twelfth"}], {"r.io/app": "eleventh"}),
    ],
)
def test_several_secrets(docker_config: Path, configs: list[Any], expected: dict[str, str]) -> None:
    for name, auths in secret_files(*configs).items():
        write(docker_config, {"auths": {key: {"auth": b64(f"{user}:pass")} for key, user in auths.items()}}, name)
    assert {image: getattr(find(image), "username", None) for image in expected} == expected
    assert find("absent.io/app") is None


def test_an_empty_entry_does_not_hide_one_of_another_secret(docker_config: Path) -> None:
    for name, entry in secret_files({}, {"auth": b64("me:pass")}).items():
        write(docker_config, {"auths": {"r.io": entry}}, name)
    assert find("r.io/app") == Credentials("me", "pass")


def test_an_invalid_secret_is_named_by_its_file(docker_config: Path) -> None:
    for name, content in secret_files("{}", "no json").items():
        write(docker_config, content, name)
    with pytest.raises(BadInput, match=r"config-2\.json is not JSON"):
        find("r.io/app")


def test_the_longest_path_wins(docker_config: Path) -> None:
    auths = {"r.io": "host", "r.io/team/app": "repository", "r.io/team": "team"}
    write(docker_config, {"auths": {key: {"auth": b64(f"{user}:x")} for key, user in auths.items()}})
    assert [found.username for image in ("r.io/a", "r.io/team/b", "r.io/team/app") if (found := find(image))] == [
        "host",
        "team",
        "repository",
    ]


def test_mounted_kubernetes_secret(docker_config: Path) -> None:
    write(docker_config, {"auths": {"r.io": {"auth": b64("me:pass")}}}, ".dockerconfigjson")
    assert find("r.io/app") == Credentials("me", "pass")


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find("r.io/app") is None
    (tmp_path / ".docker").mkdir()
    write(tmp_path / ".docker", {"auths": {"r.io": {"identitytoken": "t"}}})
    assert find("r.io/app") == Credentials(identity_token="t")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "not a JSON object"),
        ({"auths": []}, None),
        ({"auths": ["r.io"]}, "auths in"),
        ({"auths": {"r.io": "me:hidden-word"}}, "is not a JSON object"),
        ({"auths": {"r.io": {"auth": "hidden-word"}}}, "not base64 of user:password"),
        ({"auths": {"r.io": {"auth": "dXNlcjpw\ufffd"}}}, "not base64 of user:password"),
        ({"auths": {"r.io": {"auth": b64("hidden-word")}}}, "not base64 of user:password"),
        ({"auths": {"r.io": {}}}, None),
        ({"credsStore": "../evil"}, "name the helper without a path"),
        ({"credsStore": "is-not-installed"}, "docker-credential-is-not-installed, which is not installed"),
    ],
)
def test_bad_files(docker_config: Path, config: Any, says: str | None) -> None:
    write(docker_config, config)
    if says is None:
        assert find("r.io/app") is None
        return
    with pytest.raises(BadInput) as caught:
        find("r.io/app")
    assert says in str(caught.value)
    assert str(docker_config) in str(caught.value)
    assert "hidden-word" not in str(caught.value) and b64("hidden-word") not in str(caught.value)


def test_secrets_are_hidden() -> None:
    known = Credentials("user-word", "pass-word", "identity-word", "registry-word")
    assert "word" not in repr(known)
    assert set(known.secrets) == {b64("user-word:pass-word"), "pass-word", "identity-word", "registry-word"}


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path for the body of ``docker-credential-test``, whose standard input is ``$server``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    program = folder / "docker-credential-test"
    program.write_text(f'#!/bin/sh\nserver=$(cat)\necho "$1 $server" >> {folder}/calls\n. {folder}/body\n')
    program.chmod(0o755)
    return folder / "body"


def test_credential_helpers(docker_config: Path, helper: Path) -> None:
    config = {"credHelpers": {"r.io": "test"}, "auths": {"r.io": {"auth": b64("a:b")}, "s.io": {"auth": b64("c:d")}}}
    write(docker_config, config)
    helper.write_text("""echo '{"ServerURL": "r.io", "Username": "me", "Secret": "pass"}'""")
    assert find("r.io/app") == Credentials("me", "pass")
    assert find("s.io/app") == Credentials("c", "d")
    helper.write_text("""echo '{"Username": "<token>", "Secret": "identity"}'""")
    assert find("r.io/app") == Credentials(identity_token="identity")
    helper.write_text("echo 'credentials not found in native keychain'; exit 1")
    assert find("r.io/app") == Credentials("a", "b")
    helper.write_text("echo 'the keychain is locked'; exit 1")
    with pytest.raises(StepError, match=r"docker-credential-test failed for r\.io: the keychain is locked"):
        find("r.io/app")
    helper.write_text("echo pass-word")
    with pytest.raises(StepError, match="did not return Username and Secret") as caught:
        find("r.io/app")
    assert "pass-word" not in str(caught.value)
    assert (helper.parent / "calls").read_text() == "get r.io\n" * 5


def test_credential_store_knows_the_hub_by_its_old_name(docker_config: Path, helper: Path) -> None:
    write(docker_config, {"credsStore": "test"})
    helper.write_text("""echo '{"Username": "me", "Secret": "pass"}'""")
    assert find("alpine") == Credentials("me", "pass")
    assert (helper.parent / "calls").read_text() == "get https://index.docker.io/v1/\n"
