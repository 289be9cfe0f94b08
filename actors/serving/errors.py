"""Refusals: an HTTP status and an error body in OpenAI's shape."""

from typing import Any

from starlette.responses import JSONResponse

from avere_ray.errors import AvereError

RETRY_AFTER_S = 2
"""Seconds after which a request that found no room may be sent again."""


class ApiError(AvereError):
    """A request that is not answered; becomes an HTTP status and an OpenAI-style error body."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = RETRY_AFTER_S if retry_after_s is None and status == 503 else retry_after_s

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.status, self.message, self.code, self.param, self.retry_after_s)

    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        param = None if self.param is None else _sendable(self.param)
        return {"error": {"message": _sendable(self.message), "type": kind, "param": param, "code": self.code}}


def _sendable(text: str) -> str:
    """Without the halves of characters that JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _again(status: int, message: str, code: str, param: str | None, retry_after_s: int | None) -> ApiError:
    return ApiError(status, message, code=code, param=param, retry_after_s=retry_after_s)


def bad(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    """A request that would be refused in the same way again."""
    return ApiError(400, message, code=code, param=param)


def json_reply(error: ApiError) -> JSONResponse:
    """The whole HTTP reply."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return JSONResponse(error.body(), status_code=error.status, headers=headers or None)
