"""Parses request bodies and query parameters: images, text fields and files.

Accepted are JSON (`image_url`, or `image_urls` where a call takes several), multipart (images as `file` or `image`,
text as fields) and an image as the whole body. Names are case-insensitive; unknown names are refused.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from pipelines.config.project import Project
from serving.limits.fetch import Fetcher, too_large
from serving.logs import shown
from serving.refusals import Refusal

FILE_FIELDS = ("file", "image")
URL_FIELD, URLS_FIELD = "image_url", "image_urls"
MAX_JSON = 64 << 10  # and as much again for every eight addresses
LONGEST_WORD = 512  # characters
_HOW = 'send JSON {"image_url": "https://…"}, or a file as multipart field "file"'


@dataclass(frozen=True)
class SentImage:
    """One image of a request: uploaded, or named by its URL.

    Attributes:
        url: the image's URL; empty for an upload.
        data: the uploaded bytes.
        name: the file name of an upload, as the sender gives it.
    """

    url: str = ""
    data: bytes = field(default=b"", repr=False)
    name: str = ""

    def load(self, fetcher: Fetcher, project: Project) -> tuple[bytes, str]:
        """Return the bytes and their source: the URL in its loggable form, or `upload`.

        An S3 address must be one that `project` may read.

        Raises:
            Refusal: 400 or 413 for an upload; for a URL, as `Fetcher.fetch` raises.
        """
        if self.url:
            return fetcher.fetch(self.url, project), shown(self.url)
        if len(self.data) > fetcher.max_bytes:
            raise too_large("the file", fetcher.max_bytes)
        if not self.data:
            raise _empty(f"the file {self.name[:64]!r}" if self.name else "the uploaded image")
        return self.data, "upload"


@dataclass(frozen=True)
class Sent:
    """The content of a request.

    Attributes:
        images: the images in order.
        words: the text fields by name.
        numbers: the whole numbers by name.
        files: the other files by name.
        several: whether the images were sent as a list, even of one; the answer is then a list, too.
    """

    images: tuple[SentImage, ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    several: bool = False


@dataclass(frozen=True)
class _Fields:
    """What a call takes; see `read_body`."""

    images: int
    words: Collection[str]
    numbers: Collection[str]
    files: Collection[str]
    addresses: Collection[str]

    @property
    def texts(self) -> tuple[str, ...]:
        """The names of the fields that are no files and no addresses."""
        return (*self.words, *self.numbers)

    def values(self, named: dict[str, Any]) -> dict[str, Any]:
        """Return `words` and `numbers` of a `Sent`, of the fields of a request by name."""
        return {
            "words": {name: word(name, value) for name, value in named.items() if name in self.words},
            "numbers": {name: whole_number(name, value) for name, value in named.items() if name in self.numbers},
        }

    @property
    def how(self) -> str:
        """How to make the call, in a few words."""
        return _how(self.images, self.texts, self.files)


def read_body(
    request: Request,
    *,
    images: int = 1,
    words: Collection[str] = (),
    numbers: Collection[str] = (),
    files: Collection[str] = (),
    addresses: Collection[str] = (URL_FIELD,),
) -> Sent:
    """Return the content of the body: 1 to `images` images (none for 0), and any of `words`, `numbers` and `files`.

    In JSON, an image is named by one of `addresses`, and a number is written without quotes.

    Raises:
        Refusal: 400, 413 or 415 for any other body; the message says what the call takes.
    """
    taken = _Fields(images, words, numbers, files, addresses)
    kind = request.mimetype
    if kind == "multipart/form-data":
        return _from_form(request, taken)
    if images and (kind.startswith("image/") or kind == "application/octet-stream"):
        return Sent((SentImage(data=request.get_data(cache=False)),))
    if kind == "application/json" or kind.endswith("+json"):
        return _from_json(_json(request, images), taken)
    raise Refusal(415, f"the request's content type is {kind or 'not given'}: {taken.how}")


def read_fields(request: Request, allowed: Collection[str]) -> dict[str, Any]:
    """Return the values of a JSON body by name in lower case; only the names in `allowed` are accepted.

    Raises:
        Refusal: 400, 413 or 415 for any other body.
    """
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise Refusal(415, f"the request's content type is {request.mimetype or 'not given'}: {_how(0, allowed, ())}")
    return _named(_json(request, 0).items(), allowed)


def read_query(request: Request, allowed: Collection[str]) -> dict[str, str]:
    """Return the query parameters, each at most once and one of `allowed`.

    Raises:
        Refusal: 400 for any other; the message says what is allowed.
    """
    values: dict[str, str] = {}
    for name, value in request.args.items(multi=True):
        if name.lower() not in allowed:
            names = ", ".join(allowed) or "none"
            raise Refusal(400, f"there is no parameter {name[:64]!r}: this call takes {names}")
        if name.lower() in values:
            raise Refusal(400, f"the parameter {name.lower()} is given twice: give it once")
        values[name.lower()] = word(name.lower(), value)
    return values


def word(name: str, value: Any, longest: int = LONGEST_WORD) -> str:
    """Return the text of field `name`, stripped of surrounding blanks.

    Raises:
        Refusal: 400 if it is no text, empty, too long, or contains control characters or lone surrogates.
    """
    if not isinstance(value, str):
        raise Refusal(400, f"{name} is a JSON {_json_kind(value)}, not text: write it in quotes")
    text = value.strip()
    if not text:
        raise Refusal(400, f"{name} is empty: give it a value, or leave it out")
    if len(text) > longest:
        raise Refusal(400, f"{name} has {len(text):,} characters, {longest:,} are allowed: shorten it")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise Refusal(400, f"{name} holds control characters or broken Unicode: leave them out")
    return text


def read_number(name: str, text: str) -> int:
    """Return the whole number that the field or parameter `name` holds as text.

    Raises:
        Refusal: 400 for anything else.
    """
    if not re.fullmatch("-?[0-9]{1,18}", text.strip()):
        raise Refusal(400, f"{name} is {text[:64]!r}: write a whole number")
    return int(text)


def whole_number(name: str, value: Any) -> int:
    """Return the value of the JSON field `name`, a whole number.

    Raises:
        Refusal: 400 for anything else: a fraction, a truth value, a number in quotes.
    """
    if type(value) is not int:
        raise Refusal(400, f"{name} is {json.dumps(value)[:64]}: write a whole number, without quotes or a point")
    return value


def _from_form(request: Request, taken: _Fields) -> Sent:
    images, files = taken.images, taken.files
    uploads = [
        SentImage(data=file.read(), name=file.filename or "")
        for name, file in request.files.items(multi=True)
        if images and name.lower() in FILE_FIELDS
    ]
    others = [(name, file.read()) for name, file in request.files.items(multi=True) if name.lower() in files]
    fields = {*files, *(FILE_FIELDS if images else ())}
    if strange := [name for name in request.files if name.lower() not in fields]:
        raise Refusal(400, f"there is no file field {strange[0][:64]!r}: {taken.how}")
    if texts := [name for name in request.form if name.lower() in fields]:
        raise Refusal(400, f"{texts[0][:64]} was sent as text: send a file, with curl -F {texts[0][:64]}=@image.png")
    if empty := [name for name, data in others if not data]:
        raise _empty(f"the file in {empty[0][:64]!r}")
    named = _named(request.form.items(multi=True), (URL_FIELD, *taken.texts) if images else taken.texts)
    urls = [_address(named.pop(URL_FIELD))] if URL_FIELD in named else []
    if images and not uploads and not urls:
        raise Refusal(400, f'the form has no file in "file" or "image": {_HOW}')
    sent = (*uploads, *urls)
    _count(len(sent), images)
    named |= {name: read_number(name, named[name]) for name in taken.numbers if name in named}
    return Sent(sent, files=_named(others, files), several=len(sent) > 1, **taken.values(named))


def _from_json(body: dict[str, Any], taken: _Fields) -> Sent:
    images = taken.images
    addresses = () if not images else tuple(taken.addresses) if images == 1 else (URL_FIELD, URLS_FIELD)
    named = _named(body.items(), (*addresses, *taken.texts))
    values = taken.values(named)
    given = [name for name in addresses if name in named]
    if images and len(given) != 1:
        text = "names no image_url" if not given else f"holds {' and '.join(given)}"
        raise Refusal(400, f"the body {text}: {taken.how}")
    if not given:
        return Sent(**values)
    listed = named[given[0]] if given == [URLS_FIELD] else [named[given[0]]]
    if not isinstance(listed, list) or not listed:
        raise Refusal(400, f'image_urls is no list of addresses: write ["https://…"], up to {images}')
    _count(len(listed), images)
    return Sent(tuple(_address(url) for url in listed), several=given == [URLS_FIELD], **values)


def _named(pairs: Iterable[tuple[str, Any]], allowed: Collection[str]) -> dict[str, Any]:
    """Return the fields by name in lower case; refuses duplicates and names that are not `allowed`."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        plain = name.lower()
        if plain not in allowed:
            names = ", ".join(allowed) or "none"
            raise Refusal(400, f"there is no field {name[:64]!r}: this call takes {names}")
        if plain in fields:
            raise Refusal(400, f"the request names {plain} more than once: name it once")
        fields[plain] = value
    return fields


def _json(request: Request, images: int) -> dict[str, Any]:
    most = MAX_JSON * (1 + images // 8)
    too_long = Refusal(413, f"the JSON body has more than {most >> 10} kB: send the image as a file")
    if (request.content_length or 0) > most:
        raise too_long
    request.max_content_length = most
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:  # a chunked body, without a Content-Length
        raise too_long from None
    if not data:
        raise Refusal(400, f"the body is empty: {_HOW}")
    try:
        body: Any = json.loads(data, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, f"the body is not valid JSON: {_HOW}") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"the body is a JSON {_json_kind(body)}, not an object: {_HOW}")
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of two equal names, others might read the first (RFC 8259, section 4)."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refusal(400, f"the body names {twice[:64]!r} more than once in one object: name it once")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _empty(what: str) -> Refusal:
    return Refusal(400, f"{what} is empty, 0 bytes: look whether it was written, and send it again")


def _address(value: Any) -> SentImage:
    if not isinstance(value, str) or not value.strip():
        raise Refusal(400, f"image_url is a JSON {_json_kind(value)}, not an address: {_HOW}")
    if any(unicodedata.category(letter) == "Cs" for letter in value):
        raise Refusal(400, "image_url holds broken Unicode: write it percent-encoded")
    return SentImage(url=value.strip())


def _count(sent: int, allowed: int) -> None:
    if sent > allowed:
        most = "one a request" if allowed == 1 else f"up to {allowed} a request"
        raise Refusal(400, f"the request holds {sent} images: send {most}")


def _how(images: int, words: Collection[str], files: Collection[str]) -> str:
    fields = ", ".join((*((URL_FIELD,) if images else ()), *words))
    uploads = ", ".join((*(FILE_FIELDS if images else ()), *files))
    how = f"send JSON with {fields}"
    return f"{how}, or multipart with {uploads} as files" if uploads else how


def _json_kind(value: Any) -> str:
    return {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )
