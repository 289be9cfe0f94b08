"""The page at /: static files and a few drawn clips; no assets from elsewhere, no inline script or style.

    GET /    GET /page/page.css    GET /page/page.js    GET /page/samples.json    GET /page/samples/NAME.mp4

It talks to the API of the server it came from: /v1/models, /v1/chat/completions (streamed), /v1/emotion. The files
themselves hold nothing secret and need no token.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from avere_ray.synthetic.samples import SampleClip, sample_clips

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""Sent with every file: scripts, styles and requests of this server alone, and no other page may frame it."""
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


def page_routes(samples: Sequence[SampleClip] | None = None) -> list[Route]:
    """The routes of the page, to be added to an application.

    Args:
        samples: clips to offer; None draws those of `sample_clips`.

    Raises:
        StorageError: the sample clips cannot be drawn.
    """
    chosen = sample_clips() if samples is None else samples
    listed = [{"name": s.name, "title": s.title, "questions": list(s.questions)} for s in chosen]
    media = {s.name: s.media for s in chosen}

    async def sample_list(request: Request) -> Response:
        return JSONResponse(listed, headers=SECURITY_HEADERS)

    async def sample(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in media:
            message = f"there is no sample clip of that name; there are {', '.join(media) or 'none'}"
            body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "not_found"}}
            return JSONResponse(body, status_code=404, headers=SECURITY_HEADERS)
        return _reply(media[name], "video/mp4", request)

    static = [Route(path, partial(_static, *named), methods=["GET"]) for path, named in _FILES.items()]
    return [
        *static,
        Route("/page/samples.json", sample_list, methods=["GET"]),
        Route("/page/samples/{name}.mp4", sample, methods=["GET"]),
    ]


async def _static(name: str, kind: str, request: Request) -> Response:
    return _reply(files(__name__).joinpath("static", name).read_bytes(), kind, request)


def _reply(data: bytes, kind: str, request: Request) -> Response:
    """The bytes, or 304 where the browser has them already."""
    tag = f'"{sha256(data).hexdigest()[:24]}"'
    headers = {**SECURITY_HEADERS, "ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)
