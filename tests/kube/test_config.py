from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fairlead.kube import config
from fairlead.kube.config import Connection, from_kubeconfig, in_cluster
from fairlead.kube.credentials import TOKEN_FILE_TTL, ExecPlugin, TokenFile
from fairlead.kube.errors import ConfigError

Write = Callable[..., str]


@pytest.fixture(scope="session")
def pair() -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return certificate.public_bytes(encoding), key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(
        user: dict[str, Any] | None = None,
        cluster: dict[str, Any] | None = None,
        name: str = "config",
        **overrides: Any,
    ) -> str:
        content = {
            "current-context": "main",
            "contexts": [{"name": "main", "context": {"cluster": "here", "user": "me", "namespace": "team-a"}}],
            "clusters": [{"name": "here", "cluster": {"server": "https://10.0.0.1:6443/", **(cluster or {})}}],
            "users": [{"name": "me", "user": user or {}}],
            **overrides,
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


async def header(connection: Connection) -> str | None:
    return await connection.credentials.authorization()


async def test_server_namespace_and_token_come_from_the_current_context(write: Write) -> None:
    connection = from_kubeconfig(write({"token": "secret"}))
    assert (connection.server, connection.namespace) == ("https://10.0.0.1:6443", "team-a")
    assert await header(connection) == "Bearer secret"


async def test_basic_authentication(write: Write) -> None:
    expected = "Basic " + base64.b64encode(b"ann:pass").decode()
    assert await header(from_kubeconfig(write({"username": "ann", "password": "pass"}))) == expected


async def test_files_are_found_beside_the_kubeconfig_and_a_token_file_wins_over_a_token(
    write: Write, tmp_path: Path, pair: tuple[bytes, bytes]
) -> None:
    (tmp_path / "ca.pem").write_bytes(pair[0])
    (tmp_path / "token").write_text("from-file\n")
    connection = from_kubeconfig(write({"token": "plain", "tokenFile": "token"}, {"certificate-authority": "ca.pem"}))
    assert await header(connection) == "Bearer from-file"
    assert connection.tls is not None
    assert connection.tls.cert_store_stats()["x509"] == 1


def test_certificates_may_be_given_as_data(write: Write, pair: tuple[bytes, bytes]) -> None:
    certificate, key = (base64.b64encode(part).decode() for part in pair)
    user = {"client-certificate-data": certificate, "client-key-data": key}
    assert from_kubeconfig(write(user, {"certificate-authority-data": certificate})).tls is not None


def test_a_client_certificate_with_the_wrong_key_is_refused_with_its_context(
    write: Write, pair: tuple[bytes, bytes]
) -> None:
    certificate = base64.b64encode(pair[0]).decode()
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    user = {"client-certificate-data": certificate, "client-key-data": base64.b64encode(other).decode()}
    with pytest.raises(ConfigError, match="the client certificate and its key do not fit together"):
        from_kubeconfig(write(user))


def test_verification_can_be_turned_off_and_the_servers_name_given(write: Write) -> None:
    import ssl

    cluster = {"insecure-skip-tls-verify": True, "tls-server-name": "api.internal", "proxy-url": "http://proxy:3128"}
    connection = from_kubeconfig(write({}, cluster))
    assert connection.tls is not None
    assert connection.tls.verify_mode == ssl.CERT_NONE
    assert (connection.server_hostname, connection.proxy) == ("api.internal", "http://proxy:3128")


async def test_of_several_files_the_first_that_defines_a_name_wins(write: Write) -> None:
    first = write({"token": "first"}, name="first", clusters=[])
    second = write({"token": "second"}, {"server": "http://second"}, name="second")
    connection = from_kubeconfig(f"{first}:{second}:/nowhere")
    assert connection.server == "http://second"
    assert await header(connection) == "Bearer first"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"current-context": "other"}, "there is no context 'other'; it has: main"),
        ({"current-context": ""}, "no current-context is set; choose one with `kubectl config use-context NAME`"),
        ({"clusters": []}, "there is no cluster 'here'; it has: none"),
        ({"users": []}, "there is no user 'me'; it has: none"),
        ({"clusters": [{"name": "here", "cluster": {}}]}, "cluster here has no server address"),
        ({"clusters": [{}]}, "is not a kubeconfig that can be read"),
    ],
)
def test_a_kubeconfig_that_does_not_add_up_says_where(write: Write, overrides: dict[str, Any], message: str) -> None:
    path = write(**overrides)
    with pytest.raises(ConfigError) as caught:
        from_kubeconfig(path)
    assert message in str(caught.value)
    assert path in str(caught.value)


def test_a_kubeconfig_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no kubeconfig at /nowhere/config"):
        from_kubeconfig("/nowhere/config")


@pytest.mark.parametrize("content", [b"{", b"root:x:0:0:root", b"\x7fELF\xff"], ids=["torn", "text", "binary"])
def test_a_kubeconfig_that_is_something_else_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken is not a kubeconfig that can be read: [^\n]+$"):
        from_kubeconfig(str(tmp_path / "broken"))


def test_the_given_file_comes_before_the_environments_and_that_before_the_home_and_that_before_the_pod(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="no cluster is configured"):
        config.load()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.9")
    with pytest.raises(ConfigError, match=r"has no token and ca\.crt"):
        config.load()
    (tmp_path / ".kube").mkdir()
    write(None, {"server": "http://home"}, name=".kube/config")
    assert config.load().server == "http://home"
    monkeypatch.setenv("KUBECONFIG", write(None, {"server": "http://environment"}, name="environment"))
    assert config.load().server == "http://environment"
    assert config.load(write(None, {"server": "http://given"}, name="given")).server == "http://given"


async def test_a_pod_uses_its_service_account_and_reads_its_token_again_as_it_is_rotated(
    tmp_path: Path, pair: tuple[bytes, bytes]
) -> None:
    (tmp_path / "ca.crt").write_bytes(pair[0])
    (tmp_path / "token").write_text("one")
    (tmp_path / "namespace").write_text("fairlead")
    connection = in_cluster(tmp_path, {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"})
    assert (connection.server, connection.namespace) == ("https://[fd00::1]:443", "fairlead")
    assert await header(connection) == "Bearer one"
    now = 0.0
    tokens = TokenFile(tmp_path / "token", clock=lambda: now)
    assert await tokens.authorization() == "Bearer one"
    (tmp_path / "token").write_text("two")
    now = TOKEN_FILE_TTL - 1
    assert await tokens.authorization() == "Bearer one"
    now = TOKEN_FILE_TTL
    assert await tokens.authorization() == "Bearer two"


def plugin(code: str, clock: Callable[[], float] = lambda: 0.0, **spec: Any) -> ExecPlugin:
    full = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", code], **spec}
    return ExecPlugin(full, context=None, cluster={"server": "https://there"}, clock=clock)


async def test_a_plugins_token_is_kept_until_it_is_about_to_end_or_is_refused(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.write_text("")
    code = f"""
import json
with open({str(runs)!r}, "a+") as file:
    file.write("x")
    file.seek(0)
    count = len(file.read())
print(json.dumps({{"status": {{"token": str(count), "expirationTimestamp": "1970-01-01T01:00:00Z"}}}}))
"""
    now = 0.0
    credentials = plugin(code, lambda: now)
    assert [await credentials.authorization() for _ in range(3)] == ["Bearer 1"] * 3
    now = 3595.0
    assert await credentials.authorization() == "Bearer 2"
    now = 0.0
    assert credentials.rejected()
    assert await credentials.authorization() == "Bearer 3"


async def test_a_plugin_is_told_what_it_asks_for() -> None:
    code = (
        "import json, os; info = json.loads(os.environ['KUBERNETES_EXEC_INFO']);"
        "print(json.dumps({'status': {'token': info['spec']['cluster']['server'] + os.environ['EXTRA'] + info['apiVersion']}}))"
    )
    credentials = plugin(code, provideClusterInfo=True, env=[{"name": "EXTRA", "value": "+"}])
    assert await credentials.authorization() == "Bearer https://there+client.authentication.k8s.io/v1"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('please log in')", "failed (1) and said: please log in"),
        ("print('hello')", "did not print an ExecCredential"),
        ("print('{\"status\": {}}')", "gave neither a token nor a client certificate"),
    ],
)
async def test_a_plugin_that_fails_is_quoted(code: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await plugin(code).authorization()
    assert message in str(caught.value)


async def test_a_plugin_that_is_not_installed_says_how_to_get_it() -> None:
    with pytest.raises(ConfigError, match=r"no-such-plugin cannot be started: .*\. Install it from the store"):
        await plugin("", command="no-such-plugin", installHint="Install it from the store").authorization()


async def test_a_plugin_may_give_a_client_certificate(write: Write, pair: tuple[bytes, bytes]) -> None:
    status = json.dumps({"status": {"clientCertificateData": pair[0].decode(), "clientKeyData": pair[1].decode()}})
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", f"print({status!r})"],
        }
    }
    connection = from_kubeconfig(write(user))
    assert await header(connection) is None


async def test_an_old_auth_provider_is_left_to_the_official_client(write: Write) -> None:
    body = base64.urlsafe_b64encode(b'{"exp": 99999999999}').decode().rstrip("=")
    provider = {"name": "oidc", "config": {"id-token": f"e30.{body}.x"}}
    assert await header(from_kubeconfig(write({"auth-provider": provider}))) == f"Bearer e30.{body}.x"
