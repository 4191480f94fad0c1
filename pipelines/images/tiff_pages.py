"""Find the picture in a TIFF among its reduced copies and transparency masks.

TIFF 6.0, section 8: NewSubfileType (254) has bit 0 for a reduced-resolution version of another image and bit 2 for a
transparency mask; the older SubfileType (255) is 2 for a reduced-resolution image. Neither is a page. They may come
before the picture, as thumbnails do in files of some cameras, or after it, as in pyramids.
"""

from __future__ import annotations

from typing import Any

from PIL import TiffImagePlugin

from pipelines.errors import BadImage

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _PHOTOMETRIC = 254, 255, 262
_REDUCED, _MASK, _OLD_REDUCED, _PHOTOMETRIC_MASK = 1, 4, 2, 4
_MOST = 64  # image file directories; a pyramid has some ten


def select_picture(image: TiffImagePlugin.TiffImageFile) -> None:
    """Move `image` to its one full-resolution page. A file whose only image is marked as reduced holds that one.

    Raises:
        BadImage: it has several pages.
    """
    pages: list[int] = []
    place = 0
    while True:
        try:
            image.seek(place)
        except EOFError:
            break
        except Exception:  # a kind of pixels that cannot be decoded, such as those of a transparency mask
            if image.tell() != place:
                break  # the directory itself is damaged; what precedes it can be read
        if not _is_copy(image.tag_v2):
            pages.append(place)
        place += 1
        if len(pages) > 1 or place > _MOST:
            raise BadImage("the file is an animation or holds several pages (TIFF): send one picture a file")
    if not pages and place > 1:
        raise BadImage("the file holds several pages (TIFF), all of them reduced: send one picture a file")
    image.seek(pages[0] if pages else 0)


def _is_copy(tags: Any) -> bool:
    kind = _number(tags.get(_NEW_SUBFILE_TYPE))
    reduced = kind & _REDUCED or _number(tags.get(_SUBFILE_TYPE)) == _OLD_REDUCED
    return bool(reduced or kind & _MASK or _number(tags.get(_PHOTOMETRIC)) == _PHOTOMETRIC_MASK)


def _number(tag: Any) -> int:
    value = tag[0] if isinstance(tag, tuple) and tag else tag
    return value if isinstance(value, int) else 0
