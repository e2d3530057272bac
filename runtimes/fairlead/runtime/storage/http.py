"""`http(s)://`: one file, resumed where a connection dropped, retried with back-off.

The standard library's client: a model server should not carry another one for a single download.
"""

from __future__ import annotations

import base64
import email.message
import http.client
import re
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from fairlead.runtime.storage.base import PART_SUFFIX, FetchOptions, Provider
from fairlead.runtime.storage.credentials import http_headers
from fairlead.runtime.storage.errors import StorageError, TransientError, no_space

CHUNK = 1 << 18
LONGEST_WAIT = 30.0
TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
ARCHIVE_TYPES = {
    "application/zip": ".zip",
    "application/x-zip-compressed": ".zip",
    "application/x-tar": ".tar",
    "application/x-gtar": ".tar",
    "application/x-compressed-tar": ".tar.gz",
    "application/x-gzip": ".tar.gz",
    "application/gzip": ".tar.gz",
}
"""Content types that tell an archive whose address has no suffix (`/download?id=3`), as KServe reads them."""


class _PartTooLong(TransientError):
    """The part on the disk is not shorter than the file on the server."""


class HttpProvider(Provider):
    def __init__(self, uri: str, options: FetchOptions) -> None:
        super().__init__(uri, options)
        parts = urlsplit(uri)
        if not parts.hostname:
            raise StorageError(uri, "the address has no host", "write https://host/path")
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self._secrets = _secret_headers(uri, options)
        self._progressed = 0
        self._tries = 0

    def identity(self) -> str:
        """The digest, if one is given: then a cached file needs no server. Else what the server says of its version."""
        if self.options.sha256:
            return self.options.sha256
        return str(self._retrying(self._validator))

    def download(self, directory: Path) -> None:
        self._retrying(self._download, directory)

    def _validator(self) -> str:
        # A GET that is closed after its headers: signed addresses are often good for GET alone.
        with self._request({}) as response:
            headers = response.headers
            return " ".join(headers.get(name, "") for name in ("ETag", "Last-Modified", "Content-Length"))

    def _download(self, directory: Path) -> None:
        """Fetch, or fetch the rest: `directory` may hold a part, and beside it the validator of what it is a part of."""
        part = directory / f"download{PART_SUFFIX}"
        note = directory / f"validator{PART_SUFFIX}"
        try:
            name = self._download_rest(part, note)
        except _PartTooLong:
            part.unlink()
            raise
        part.rename(directory / name)
        note.unlink(missing_ok=True)

    def _download_rest(self, part: Path, note: Path) -> str:
        """Fill `part`; the answer is the file's name."""
        have = part.stat().st_size if part.exists() and note.exists() else 0
        request = {"Range": f"bytes={have}-", "If-Range": note.read_text()} if have else {}
        with self._request(request) as response:
            if response.status == http.client.PARTIAL_CONTENT and have:
                total = _range_total(self.uri, response.headers, have)
            else:
                have, total = 0, _length(response.headers)
                part.unlink(missing_ok=True)
                _keep_validator(note, response.headers)
            self._check_space(part.parent, total, have)
            self._copy(response, part, have, total)
            return _file_name(self._url, response.headers)

    def _copy(self, response: http.client.HTTPResponse, part: Path, have: int, total: int | None) -> None:
        with part.open("ab") as sink:
            self.options.report(have, total)
            while chunk := response.read1(CHUNK):
                sink.write(chunk)
                have += len(chunk)
                self._progressed += len(chunk)
                self.options.report(have, total)
        if total is not None and have != total:
            raise TransientError(self.uri, f"the connection ended after {have} of {total} bytes")

    def _check_space(self, directory: Path, total: int | None, have: int) -> None:
        if total is not None and total - have > shutil.disk_usage(directory).free:
            raise no_space(self.uri, directory, total - have)

    def _retrying(self, action: Any, *arguments: Any) -> Any:
        wait = wait_random_exponential(multiplier=self.options.backoff, max=LONGEST_WAIT)
        self._tries, self._progressed = 0, 0

        def wait_time(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, TransientError) else 0.0
            return max(wait(state), min(asked, LONGEST_WAIT))

        return Retrying(
            stop=self._exhausted, wait=wait_time, retry=retry_if_exception_type(TransientError), reraise=True
        )(action, *arguments)

    def _exhausted(self, state: RetryCallState) -> bool:
        """Only tries that brought nothing count: a line that drops every minute still gets the model through."""
        self._tries = 0 if self._progressed else self._tries + 1
        self._progressed = 0
        return self._tries >= self.options.attempts

    @contextmanager
    def _request(self, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """A response with status 200 or 206, its errors in our words while it is read as well."""
        request = urllib.request.Request(  # noqa: S310
            self._url, headers={"Accept-Encoding": "identity", "User-Agent": "fairlead", **headers}
        )
        for name, value in self._secrets.items():
            # Unredirected: what is secret for this host is not for the one it sends us to.
            request.add_unredirected_header(name, value)
        try:
            with _opener().open(request, timeout=self.options.timeout) as response:
                yield response
        except urllib.error.HTTPError as error:
            error.close()
            raise _status_error(self.uri, error.code, error.headers) from error
        except urllib.error.URLError as error:
            raise _connection_error(self.uri, error.reason, self.options.timeout) from error
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            raise _connection_error(self.uri, error, self.options.timeout) from error


def _opener() -> urllib.request.OpenerDirector:
    """Proxies from the environment, redirects, http and https; no ftp and no file, to which a redirect could lead."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(handler())
    return opener


def _secret_headers(uri: str, options: FetchOptions) -> dict[str, str]:
    parts = urlsplit(uri)
    try:
        headers = http_headers(options.environment, parts.hostname or "", parts.port)
    except ValueError as error:
        raise StorageError(uri, str(error), "correct it in the Secret") from error
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return headers


def _keep_validator(note: Path, headers: email.message.Message) -> None:
    """Without a strong validator nobody can say that the rest belongs to the part we have: then there is no note, no resuming."""
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    validator = modified if etag.startswith("W/") or not etag else etag
    if validator:
        note.write_text(validator)
    else:
        note.unlink(missing_ok=True)


def _length(headers: email.message.Message) -> int | None:
    length = headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def _range_total(uri: str, headers: email.message.Message, have: int) -> int | None:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != have:
        raise StorageError(
            uri,
            f"the server answered a request for bytes {have}- with {headers.get('Content-Range')!r}",
            "its ranges are broken",
        )
    return None if match[2] == "*" else int(match[2])


def _file_name(url: str, headers: email.message.Message) -> str:
    """From Content-Disposition, else the address; with an archive's suffix if only the content type tells it."""
    name = PurePosixPath((headers.get_filename() or "").replace("\\", "/")).name
    name = name or PurePosixPath(unquote(urlsplit(url).path)).name
    if not name or name.startswith(".") or "\0" in name:
        name = "model"
    if "." not in name:
        name += ARCHIVE_TYPES.get(headers.get_content_type(), "")
    return name


def _status_error(uri: str, status: int, headers: email.message.Message) -> StorageError:
    if status in TRANSIENT_STATUS:
        after = headers.get("Retry-After", "")
        return TransientError(
            uri, f"the server answers {status}", "try again later", float(after) if after.isdigit() else 0.0
        )
    if status in (404, 410):
        return StorageError(uri, f"not found: the server answers {status}", "check the address")
    if status in (401, 403):
        host = urlsplit(uri).hostname
        return StorageError(
            uri, f"forbidden: the server answers {status}", f"give its credentials, e.g. {host}-headers in a Secret"
        )
    if status == 416:
        return _PartTooLong(uri, "the file on the server became shorter while it was fetched")
    return StorageError(uri, f"the server answers {status} {http.client.responses.get(status, '')}")


def _connection_error(uri: str, error: object, timeout: float) -> StorageError:
    host = urlsplit(uri).hostname
    if isinstance(error, ssl.SSLCertVerificationError):
        return StorageError(
            uri,
            f"the certificate of {host} is not trusted: {error.verify_message}",
            "set SSL_CERT_FILE to its authority's",
        )
    if isinstance(error, socket.gaierror):
        return TransientError(uri, f"the name {host} cannot be resolved", "check the address and the network")
    if isinstance(error, TimeoutError):
        return TransientError(uri, f"{host} sent nothing for {timeout:g} s", "check the network")
    if isinstance(error, ConnectionRefusedError):
        return TransientError(uri, f"{host} refuses the connection", "check the address and whether the server runs")
    if isinstance(error, http.client.IncompleteRead):
        return TransientError(uri, "the connection ended early")
    return TransientError(uri, f"the connection to {host} failed: {error}")
