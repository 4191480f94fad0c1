"""Parses multipart forms with limits that name themselves when a form exceeds them.

Werkzeug's own parser answers every limit with one exception, and takes a broken form for an empty one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from flask import Request
from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from serving.refusals import Refusal

MAX_PART_HEADER = 16 << 10  # bytes; a usual one has 100
MAX_TEXT = 256 << 10  # bytes of all text fields together
_READ = 64 << 10
_CHARSETS = ("ascii", "us-ascii", "utf-8", "iso-8859-1")
_PLAIN = {"content-encoding": ("identity",), "content-transfer-encoding": ("7bit", "8bit", "binary")}

_Parsed = tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]


class FormParser(FormDataParser):
    """Parses `multipart/form-data`; other types as Werkzeug does."""

    def parse(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str] | None = None
    ) -> Any:
        """Return the stream, the text fields and the files.

        Raises:
            Refusal: 400 for a broken form, 413 for one with too many or too large parts, 415 for encoded parts.
        """
        if mimetype != "multipart/form-data":
            return super().parse(stream, mimetype, content_length, options)
        try:
            return self._parts(stream, content_length, (options or {}).get("boundary", "").encode("ascii"))
        except ValueError as error:
            raise Refusal(400, f"the form is broken ({error}): let a library make it, or curl -F") from None

    def _parts(self, stream: IO[bytes], content_length: int | None, boundary: bytes) -> _Parsed:
        if not boundary:
            raise ValueError("its Content-Type names no boundary")
        texts, files = MultiDict[str, str](), MultiDict[str, FileStorage]()
        part: Field | File | None = None
        content: IO[bytes] | None = None
        parts = text_bytes = 0
        for event in _events(stream, MultipartDecoder(boundary)):
            if isinstance(event, (Field, File)):
                parts += 1
                if self.max_form_parts is not None and parts > self.max_form_parts:
                    raise Refusal(413, f"the form has more than {self.max_form_parts} parts: send fewer at a time")
                _check(event.name, event.headers)
                part = event
                content = self.stream_factory(
                    content_length,
                    event.headers.get("content-type"),
                    event.filename if isinstance(event, File) else None,
                )
            elif isinstance(event, Data) and part is not None and content is not None:
                content.write(event.data)
                if isinstance(part, Field):
                    text_bytes += len(event.data)
                    if text_bytes > MAX_TEXT:
                        raise Refusal(413, f"the text fields have more than {MAX_TEXT >> 10} kB: send files as files")
                if event.more_data:
                    continue
                content.seek(0)
                if isinstance(part, File):
                    files.add(part.name, FileStorage(content, part.filename, part.name, headers=part.headers))
                else:
                    texts.add(part.name, _text(part, content.read()))
        return stream, texts, files


def _events(stream: IO[bytes], decoder: MultipartDecoder) -> Iterator[Event]:
    """Yield the decoder's events up to the end of the form, and bound what it keeps of an unfinished part header."""
    while True:
        data = stream.read(_READ)
        decoder.receive_data(data or None)
        while not isinstance(event := _next(decoder), (Epilogue, NeedData)):
            yield event
        if isinstance(event, Epilogue):
            return
        # Without data or an event, the buffer holds the beginning of a header, or what precedes the first part.
        if len(decoder.buffer) > MAX_PART_HEADER + _READ:
            raise _long_header()


def _next(decoder: MultipartDecoder) -> Event:
    try:
        return decoder.next_event()
    except UnicodeError:
        raise ValueError("a part's header is not UTF-8") from None
    except ValueError as error:
        raise ValueError("it ends before its last boundary" if decoder.complete else str(error)) from None


def _text(part: Field, content: bytes) -> str:
    """Decode a text field, by default as UTF-8."""
    _, parameters = parse_options_header(part.headers.get("content-type", ""))
    charset = parameters.get("charset", "utf-8").lower()
    try:
        return content.decode(charset if charset in _CHARSETS else "utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"the field {part.name[:64]!r} is not {charset[:20]}") from None


def _check(name: str | None, headers: Headers) -> None:
    """Refuse a part without a name, with a header that is too long, or encoded."""
    if sum(len(key) + len(value) + 4 for key, value in headers) > MAX_PART_HEADER:
        raise _long_header()
    if not name:
        raise ValueError("a part has no name")
    for header, plain in _PLAIN.items():
        value = headers.get(header, plain[0]).strip().lower()
        if value not in plain:
            raise Refusal(415, f"the part {name[:64]!r} has {header}: {value[:64]}; send it as it is")


def _long_header() -> Refusal:
    return Refusal(413, f"a part of the form has a header of more than {MAX_PART_HEADER >> 10} kB: shorten its names")


class FormRequest(Request):
    """A request whose forms `FormParser` parses."""

    form_data_parser_class = FormParser
