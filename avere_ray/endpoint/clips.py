"""Asks a server of this project about a clip: GET /v1/models and POST /v1/emotion, with the clip as a file of a form.

One request, no retries: a person waits for it.
"""

import http.client
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import avere_ray
from avere_ray.endpoint.client import _opener
from avere_ray.endpoint.wire import explained, read_all
from avere_ray.errors import ConfigError, EndpointError, RequestRefused

TOKEN_VARIABLE = "AVERE_RAY_API_TOKEN"
"""Environment variable with the server's token."""
TIMEOUT_S = 300.0
"""Seconds one request may take."""
_REQUEST_FAULTS = (400, 413, 415, 422)


class ClipServer:
    """One server of `avere-ray serve`."""

    def __init__(self, url: str, token: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """
        Args:
            url: for instance "http://127.0.0.1:8000"; a path that ends in /v1 is accepted too.
            token: what the server asks for; "" sends none.
            timeout_s: seconds one request may take.

        Raises:
            ConfigError: the address is none, or the token holds characters that no token has.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigError(f"endpoint {url!r} is no address of a server; give one like http://127.0.0.1:8000")
        if not (token.isascii() and (token.isprintable())):
            raise ConfigError(f"the token in {TOKEN_VARIABLE} holds characters that no token has; set it again")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._token, self._timeout_s = token, timeout_s
        self._opener = _opener(url)

    def models(self) -> list[str]:
        """Ids of what is served, the base first.

        Raises:
            EndpointError: nobody answers there, or not as this server does.
        """
        found = self._json(urllib.request.Request(f"{self.url}/v1/models"))
        try:
            names = [str(model["id"]) for model in found["data"]]
        except (KeyError, TypeError) as error:
            raise EndpointError(f"{self.url}/v1/models is no list of models; is it another server?") from error
        if not names:
            raise EndpointError(f"{self.url} serves no model")
        return names

    def emotion(self, clip: bytes, fields: Mapping[str, str]) -> dict[str, Any]:
        """What the server says about a clip; see `avere_ray.insight.report` for the JSON.

        Args:
            clip: the media file.
            fields: of the form: "model", "question", "grounding" ("true" or "false").

        Raises:
            RequestRefused: it refuses this clip or question.
            EndpointError: nobody answers there, or it refuses whoever asks.
        """
        kind, body = form(clip, fields)
        request = urllib.request.Request(f"{self.url}/v1/emotion", data=body, headers={"Content-Type": kind})
        found = self._json(request)
        if not isinstance(found, dict) or not isinstance(found.get("answer"), str):
            raise EndpointError(f"{self.url}/v1/emotion did not answer in the form of this version; update one of them")
        return found

    def _json(self, request: urllib.request.Request) -> Any:
        request.add_header("User-Agent", f"avere_ray/{avere_ray.__version__}")
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return json.loads(read_all(answer, time.monotonic() + self._timeout_s))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error) or type(error).__name__
            raise EndpointError(
                f"nobody answers at {self.url} ({reason}). Start a server with `avere-ray serve RUN`, or correct the "
                "address."
            ) from None
        except ValueError as error:
            raise EndpointError(f"{request.full_url} did not answer with JSON; is it another server?") from error

    def _refusal(self, error: urllib.error.HTTPError) -> EndpointError:
        code, said = explained(error)
        if self._token:
            said = said.replace(self._token, "...")
        words = f"{self.url} answers {error.code}{f' ({code})' if code else ''}: {said}"
        if error.code in (401, 403):
            return EndpointError(f"{words}. Set {TOKEN_VARIABLE} to a token of that server.")
        if error.code == 404 and code != "model_not_found":
            return EndpointError(f"{words}. It does not offer {urlsplit(error.url or '').path}; is it another server?")
        if error.code in (429, 503):
            wait = error.headers.get("Retry-After", "")
            return EndpointError(f"{words}. Ask again{f' in {wait} s' if wait.isdecimal() else ' later'}.")
        return RequestRefused(words) if error.code in _REQUEST_FAULTS else EndpointError(words)


def form(clip: bytes, fields: Mapping[str, str]) -> tuple[str, bytes]:
    """Content type and body of a multipart form with a file named "clip"."""
    mark = secrets.token_hex(16)
    head = "".join(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                   for name, value in fields.items())  # fmt: skip
    file = (f'--{mark}\r\nContent-Disposition: form-data; name="clip"; filename="clip.mp4"\r\n'
            "Content-Type: video/mp4\r\n\r\n")  # fmt: skip
    body = head.encode() + file.encode() + clip + f"\r\n--{mark}--\r\n".encode()
    return f"multipart/form-data; boundary={mark}", body
