"""What schemathesis sends, which reads this as its hooks: real files and addresses among useless ones."""

import base64
import ipaddress
import itertools
import json
import os
from pathlib import Path

import schemathesis
from hypothesis import strategies
from schemathesis.specs.openapi._auth_retry import INVALID_AUTH_HEADERS

_given = json.loads(Path(os.environ["SENT_BY_SCHEMATHESIS"]).read_text(encoding="utf-8"))
_files = [bytes.fromhex(text) for text in _given["files"]]
_numbers = itertools.count(1)

schemathesis.openapi.format("binary", strategies.sampled_from(_files) | strategies.binary(min_size=1, max_size=64))
schemathesis.openapi.format("uri", strategies.sampled_from(_given["addresses"]))


@schemathesis.hook
def before_call(context, case, kwargs):
    """Let each request come from another address, and each wrong password be another account's.

    Serving would else limit the guessing, with 429, before the checks are through; that is for
    tests/serving/auth/test_login_rate_limit.py. And leave the account alone that the requests are made with.
    """
    number = next(_numbers)
    case.headers["X-Forwarded-For"] = str(ipaddress.IPv4Address("10.0.0.0") + number)
    wrong = base64.b64encode(f"nobody-{number}:wrong".encode()).decode()
    INVALID_AUTH_HEADERS["_basic_auth"] = f"Basic {wrong}"
    if isinstance(case.path_parameters, dict) and case.path_parameters.get("name") == "root":
        case.path_parameters["name"] = "camera-7"
