"""One HTTP request and its answer, told plainly when it fails. The standard library will do: it starts at once."""

from __future__ import annotations

import json
import socket
from http.client import HTTPException, InvalidURL
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, build_opener
from urllib.request import Request as HttpRequest

from fairlead.cli.errors import CliError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fairlead.cli.request import Request

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def post(request: Request, headers: Mapping[str, str], timeout: float) -> object:
    """The JSON of the answer, or its text; raises CliError with the server's own words."""
    if urlsplit(request.url).scheme not in ("http", "https"):
        raise CliError(f"{request.url} is no HTTP address; write it like http://localhost:8080")
    sent = {"Content-Type": "application/json", **({"Host": request.host} if request.host else {}), **headers}
    try:
        http = HttpRequest(request.url, data=request.body, headers=sent, method="POST")  # noqa: S310 - the scheme is checked above
        with _opener(request.url).open(http, timeout=timeout) as answer:
            return _document(answer.read())
    except HTTPError as error:
        with error:
            raise CliError(f"{request.url} answered {error.code}: {_words(error.read())}") from None
    except (InvalidURL, ValueError) as error:
        raise CliError(f"{request.url} is no URL: {error}") from None
    except (URLError, OSError, HTTPException) as error:
        raise CliError(_no_answer(request.url, error, timeout)) from None


def _opener(url: str) -> OpenerDirector:
    """Through the environment's proxy, but not to this machine."""
    return build_opener(ProxyHandler({})) if urlsplit(url).hostname in LOOPBACK else build_opener()


def _document(body: bytes) -> object:
    text = body.decode(errors="replace")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _words(body: bytes) -> str:
    """What an error body says: V1 and V2 servers and the gateway put it into `error`."""
    document = _document(body)
    if isinstance(document, dict):
        document = document.get("error") or document.get("detail") or document.get("message") or document
    return " ".join(str(document).split()) or "nothing more"


def _no_answer(url: str, error: OSError | HTTPException, timeout: float) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    where = urlsplit(url).netloc
    if isinstance(reason, TimeoutError):
        return f"{where} did not answer within {timeout:g} s; --timeout waits longer"
    if isinstance(reason, socket.gaierror):
        return f"the host {urlsplit(url).hostname} is not known here; give the gateway's address with --url or FAIRLEAD_URL"
    if isinstance(reason, ConnectionRefusedError):
        return f"nothing listens on {where}; is the gateway up? --url or FAIRLEAD_URL names another"
    return f"{where} cannot be reached: {reason}"
