"""Which S3 keys and prefixes are accepted from people: in project files, and in requests to serving.

S3 itself takes nearly any key. Servers that keep objects as files, and proxies in front, do not: they resolve dot
segments and fold repeated slashes, so that the object read would not be the object that was checked.
"""

import re
import unicodedata
from urllib.parse import unquote

LONGEST_KEY = 1024  # bytes of UTF-8, as S3 counts
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def key_problem(key: str) -> str | None:
    """Return what is wrong with an object's key, as the end of "the key …", or None.

    Percent-encoded characters are judged as what they stand for, since a proxy may decode them.

    >>> key_problem("cells/inbox/7.png")
    >>> key_problem("../secrets.env")
    "holds the segment '..'"
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "holds broken Unicode"
    if not key:
        return "is empty"
    if size > LONGEST_KEY:
        return f"has {size:,} bytes, {LONGEST_KEY:,} are allowed"
    plain = _decoded(key)
    if any(unicodedata.category(letter) == "Cc" for letter in plain):
        return "holds control characters"
    segments = re.split(r"[/\\]", plain)
    for segment in segments:
        if segment in (".", ".."):
            return f"holds the segment {segment!r}"
    if "" in segments[:-1]:
        return "begins with a slash or holds two in a row"
    if not segments[-1]:
        return "ends with a slash: it names a folder"
    return None


def split_prefix(address: str) -> tuple[str, str]:
    """Split `s3://bucket/prefix/` into bucket and prefix, which may be empty: the whole bucket.

    Raises:
        ValueError: the address is not of this form; the message says what to write.
    """
    scheme, _, rest = address.partition("://")
    bucket, slash, prefix = rest.partition("/")
    if scheme != "s3" or not slash or not BUCKET.fullmatch(bucket):
        raise ValueError(f"{address!r} is no S3 address: write s3://bucket/prefix/")
    if any(letter in prefix for letter in "*?"):
        raise ValueError(f"{address!r} holds a wildcard: a prefix covers everything below it, so leave it out")
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"{address!r} does not end with a slash: write s3://{bucket}/{prefix}/")
    if prefix and (problem := key_problem(prefix[:-1])):
        raise ValueError(f"the prefix of {address!r} {problem}: write s3://bucket/prefix/")
    return bucket, prefix


def _decoded(text: str) -> str:
    """Return `text` with its percent-encoding undone, however often it was applied."""
    while (once := unquote(text)) != text:
        text = once
    return text
