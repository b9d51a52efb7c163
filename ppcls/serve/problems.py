"""What goes wrong, as problem documents (RFC 9457): one line that says where and what to do."""

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
TITLES = {
    "image": "An image cannot be predicted",
    "request": "The request cannot be understood",
    "model": "No such model",
    "key": "A key is needed",
    "forbidden": "Not allowed here",
    "busy": "Too much to do",
    "late": "Too late",
    "slow": "The request came too slowly",
    "large": "Too large",
    "engine": "The model could not answer",
    "starting": "Not ready yet",
    "reload": "The new version is not taken",
    "http": "",  # its status says it
}


class ProblemError(Exception):
    """Ends a request; `detail` is the one line."""

    def __init__(self, status: int, kind: str, detail: str, **more: Any):
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers: dict[str, str] = more.pop("headers", {})
        self.more = more

    def document(self) -> dict[str, Any]:
        title = TITLES[self.kind] or HTTPStatus(self.status).phrase
        kind = "about:blank" if self.kind == "http" else f"/docs/problems#{self.kind}"
        return {
            "type": kind,
            "title": title,
            "status": self.status,
            "detail": self.detail,
            # What clients of the Open Inference Protocol read.
            "error": self.detail,
            **self.more,
        }

    def response(self) -> Response:
        text = json.dumps(self.document(), ensure_ascii=False)
        return Response(text.encode("utf-8", "replace"), self.status, self.headers, MEDIA_TYPE)

    def as_http(self) -> bytes:
        """The whole answer, after which the connection ends, where no application is asked."""
        body = json.dumps(self.document()).encode()
        headers = self.headers | {
            "Content-Type": MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
