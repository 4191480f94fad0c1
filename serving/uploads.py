"""Gets the image's bytes out of a request, whichever of the ways it was sent."""

from typing import Any

from flask import Request
from werkzeug.exceptions import BadRequest

from serving.fetch import Fetcher, too_large
from serving.logs import shown
from serving.refusals import Refusal

FILE_FIELDS = ("file", "image")
URL_FIELD = "image_url"
MAX_JSON = 64 << 10
_HOW = 'send JSON {"image_url": "https://…"}, or a file as multipart field "file"'


def read_image(request: Request, fetcher: Fetcher, bucket: str) -> tuple[bytes, str]:
    """Return the image's bytes and where they came from: its address as it may be logged, or `upload`.

    Taken are JSON with `image_url` (in any case), multipart with one file as `file` or `image`, and an image as the
    bare body. `bucket` is the project's own.

    Raises:
        Refusal: 400, 413 or 415 for the request itself; for what an address gives, as `Fetcher.fetch` says.
    """
    kind = request.mimetype
    if kind == "multipart/form-data":
        data = _from_form(request)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        data = request.get_data(cache=False)
    elif kind == "application/json" or kind.endswith("+json"):
        url = _url(request)
        return fetcher.fetch(url, bucket), shown(url)
    else:
        raise Refusal(415, f"the request's content type is {kind or 'not given'}: {_HOW}")
    if len(data) > fetcher.max_bytes:
        raise too_large("the file", fetcher.max_bytes)
    if not data:
        raise Refusal(400, f"the request holds no image: {_HOW}")
    return data, "upload"


def _from_form(request: Request) -> bytes:
    files = [file for name, file in request.files.items(multi=True) if name.lower() in FILE_FIELDS]
    if len(files) == 1:
        return files[0].read()
    if files:
        raise Refusal(400, f"the form holds {len(files)} files: send one a request")
    fields = ", ".join(sorted({*request.files, *request.form})[:5]) or "none"
    raise Refusal(400, f'the form has no file in "file" or "image" (its fields: {fields[:200]}): {_HOW}')


def _url(request: Request) -> str:
    if (request.content_length or 0) > MAX_JSON:
        raise Refusal(413, f"the JSON body has more than {MAX_JSON >> 10} kB: send the image as a file")
    try:
        body: Any = request.get_json(force=True)
    except (BadRequest, RecursionError):
        raise Refusal(400, f"the body is not valid JSON: {_HOW}") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"the body is a JSON {_json_kind(body)}, not an object: {_HOW}")
    named = [value for key, value in body.items() if key.lower() == URL_FIELD]
    if len(named) != 1:
        raise Refusal(400, f"the body names image_url {len(named)} times: {_HOW}")
    if not isinstance(named[0], str) or not named[0].strip():
        raise Refusal(400, f"image_url is a JSON {_json_kind(named[0])}, not an address: {_HOW}")
    return named[0].strip()


def _json_kind(value: Any) -> str:
    return {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )
