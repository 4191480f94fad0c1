"""What a request holds, whichever way it was sent; and what is refused, by name."""

import io
import json
from typing import Any

import pytest
from flask import Flask, request

from serving.api.uploads import Sent, read_body, read_query
from serving.refusals import Refusal

app = Flask(__name__)
URL = "https://example.com/x.png"


def read(takes: dict[str, Any], **sent: Any) -> Sent:
    with app.test_request_context("/", method="POST", **sent):
        return read_body(request, **takes)


def refused(takes: dict[str, Any], **sent: Any) -> str:
    with pytest.raises(Refusal) as caught:
        read(takes, **sent)
    assert caught.value.status in (400, 413, 415)
    return str(caught.value)


@pytest.mark.parametrize("name", ["image_url", "Image_url", "IMAGE_URL"])
def test_body_when_json_names_an_address_in_any_case_then_read(name: str):
    assert read({}, json={name: f" {URL} "}).images[0].url == URL


def test_body_when_words_come_as_json_or_form_then_the_same():
    takes = {"words": ("group", "type")}
    by_json = read(takes, json={"image_url": URL, "Group": " part 7 ", "type": "dent"})
    by_form = read(
        takes, data={"image_url": URL, "GROUP": "part 7", "type": "dent"}, content_type="multipart/form-data"
    )
    assert by_json.words == by_form.words == {"group": "part 7", "type": "dent"}
    assert by_json.images == by_form.images


def test_body_when_a_file_is_uploaded_then_bytes_and_name():
    sent = read({}, data={"FILE": (io.BytesIO(b"bytes"), "a.png")}, content_type="multipart/form-data")
    assert [(image.data, image.name) for image in sent.images] == [(b"bytes", "a.png")]
    assert not sent.several
    assert read({}, data=b"bytes", content_type="image/png").images[0].data == b"bytes"


def test_body_when_several_are_allowed_then_in_order():
    listed = [f"{URL}?{number}" for number in range(64)]
    sent = read({"images": 64}, json={"image_urls": listed})
    assert ([image.url for image in sent.images], sent.several) == (listed, True)
    assert read({"images": 64}, json={"image_urls": [URL]}).several
    files = [(io.BytesIO(b"1"), "1.png"), (io.BytesIO(b"2"), "2.png")]
    sent = read({"images": 64}, data={"file": files}, content_type="multipart/form-data")
    assert ([image.name for image in sent.images], sent.several) == (["1.png", "2.png"], True)


def test_body_when_no_image_is_asked_for_then_words_and_other_files():
    takes = {"images": 0, "words": ("label",), "files": ("mask",)}
    assert read(takes, json={"label": "good"}) == Sent(words={"label": "good"})
    form = {"label": "good", "Mask": (io.BytesIO(b"png"), "m.png")}
    assert read(takes, data=form, content_type="multipart/form-data").files == {"mask": b"png"}
    assert "there is no file field 'file'" in refused(
        takes, data={"file": (io.BytesIO(b"png"), "m.png")}, content_type="multipart/form-data"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"image_url": URL, "typo": "x"}, "there is no field 'typo': this call takes image_url, type"),
        ({"image_url": URL, "Image_URL": URL}, "names image_url more than once"),
        ({"image_urls": [URL]}, "there is no field 'image_urls'"),
        ({"type": "dent"}, "names no image_url"),
        ({"image_url": URL, "type": 7}, "type is a JSON number, not text"),
        ({"image_url": URL, "type": None}, "type is a JSON null, not text"),
        ({"image_url": URL, "type": " "}, "type is empty"),
        ({"image_url": URL, "type": "x" * 513}, "type has 513 characters"),
        ({"image_url": URL, "type": "a\x00b"}, "control characters"),
        ({"image_url": URL, "type": "\ud800"}, "broken Unicode"),
        ({"image_url": "http://\ud800.example"}, "broken Unicode"),
    ],
)
def test_body_when_json_is_not_what_the_call_takes_then_refused_by_name(body: dict[str, Any], message: str):
    assert message in refused({"words": ("type",)}, data=json.dumps(body), content_type="application/json")


def test_body_when_a_list_is_wrong_then_refused():
    takes = {"images": 3}
    assert "up to 3" in refused(takes, json={"image_urls": [URL] * 4})
    assert "no list" in refused(takes, json={"image_urls": []})
    assert "not an address" in refused(takes, json={"image_urls": [URL, 7]})
    assert "holds image_url and image_urls" in refused(takes, json={"image_urls": [URL], "image_url": URL})


def test_body_when_a_file_comes_as_text_then_told_how():
    assert "curl -F file=@" in refused({}, data={"file": "text"}, content_type="multipart/form-data")


def test_query_when_parameters_are_known_then_read_and_others_refused():
    with app.test_request_context("/?Limit=5"):
        assert read_query(request, ("limit", "since")) == {"limit": "5"}
    for query, message in {
        "limt=5": "no parameter 'limt': this call takes limit, since",
        "limit=5&LIMIT=6": "given twice",
        "limit=": "limit is empty",
    }.items():
        with app.test_request_context(f"/?{query}"), pytest.raises(Refusal, match=message):
            read_query(request, ("limit", "since"))
