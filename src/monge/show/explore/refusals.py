"""Refusals of the API: what is documented, raised and sent."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from monge.show.explore import schemas

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": schemas.Problem, "description": "The request is malformed."},
    403: {"model": schemas.Problem, "description": "Without the token, or from elsewhere."},
    404: {"model": schemas.Problem, "description": "There is no such run."},
    408: {"model": schemas.Problem, "description": "The body came too slowly."},
    409: {
        "model": schemas.Problem,
        "description": "Superseded, or a damaged run.",
    },
    413: {"model": schemas.Problem, "description": "The body is too large."},
    415: {"model": schemas.Problem, "description": "The body has another type."},
    422: {"model": schemas.Problem, "description": "An argument does not fit the run."},
    503: {"model": schemas.Problem, "description": "Too many requests wait: try again."},
}
NAMES = {400: "malformed", 404: "not_found", 405: "not_allowed", 422: "bad_argument"}


class Refusal(HTTPException):
    """A problem with its name and status."""

    def __init__(self, status: int, error: str, message: str):
        super().__init__(status, message)
        self.error = error


def problem(
    status: int, error: str, message: str, more: Mapping[str, str] | None = None
) -> JSONResponse:
    """The reply to a refused request, with more headers; characters that UTF-8 cannot encode are
    replaced."""
    text = message.encode(errors="replace").decode()
    headers = {"retry-after": "1"} if status == 503 else {}
    return JSONResponse({"error": error, "message": text}, status, headers | dict(more or {}))


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """The reply to a refusal."""
    assert isinstance(error, HTTPException)
    name = error.error if isinstance(error, Refusal) else NAMES.get(error.status_code, "refused")
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":  # where HEAD is answered as well
        headers["Allow"] = "GET, HEAD"
    return problem(error.status_code, name, str(error.detail), headers)


async def refuse_invalid(request: Request, error: Exception) -> JSONResponse:
    """The reply to a body or parameter of the wrong type.

    The value is not repeated, because it may be long or hold NaN.
    """
    assert isinstance(error, RequestValidationError)
    reasons = [f"`{_place(one)}`: {one['msg']}" for one in error.errors()[:3]]
    return problem(422, "bad_argument", "; ".join(reasons)[:500])


def _place(found: dict[str, Any]) -> str:
    """The field at fault; the body where it is missing, or no JSON."""
    names = () if found["type"] == "json_invalid" else found["loc"][1:]
    return ".".join(str(name)[:40] for name in names) or "body"


async def refuse_unforeseen(request: Request, error: Exception) -> JSONResponse:
    """The reply to a defect; the traceback goes only to the log."""
    return problem(500, "failed", "the server failed: its log says where")


def only_known_parameters(request: Request) -> None:
    """Refuses parameters of a query that its route does not have, or that are given twice."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            has = f"has only {', '.join(sorted(known))}" if known else "has none"
            message = f"there is no parameter {name[:40]!r}: the query of this address {has}"
            raise Refusal(400, "malformed", message)
        if given.count(name) > 1:
            raise Refusal(400, "malformed", f"the parameter {name!r} is given more than once")


HANDLERS: dict[int | type[Exception], Any] = {
    RequestValidationError: refuse_invalid,
    HTTPException: refuse,
    Exception: refuse_unforeseen,
}
