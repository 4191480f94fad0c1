"""Bearer tokens: signed, expiring, and bound to the account's stamp, so that a changed password ends them."""

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from itsdangerous import BadSignature, URLSafeSerializer

from pipelines.errors import SettingsError

_SHORTEST = 32  # characters of a signing key
LONGEST_TOKEN = 1024


@dataclass(frozen=True)
class Claim:
    """What a token says: whose it is, by number and stamp, and until when it holds."""

    user_id: int
    stamp: str
    expires_at: datetime

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return datetime.now(UTC) >= self.expires_at


class Tokens:
    """Makes and reads tokens with one signing key; every process with that key takes them."""

    def __init__(self, key: str, hours: float):
        self._lifetime = timedelta(hours=hours)
        self._serializer = URLSafeSerializer(
            key, salt="inspectline.token", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def make(self, user_id: int, stamp: str) -> tuple[str, datetime]:
        """Return a new token and when it expires."""
        expires_at = datetime.now(UTC).replace(microsecond=0) + self._lifetime
        return str(self._serializer.dumps([user_id, stamp, int(expires_at.timestamp())])), expires_at

    def read(self, token: str) -> Claim | None:
        """Return what a token says, or None for one that is not ours or over."""
        if len(token) > LONGEST_TOKEN:
            return None
        try:
            user_id, stamp, until = self._serializer.loads(token)
        except (BadSignature, ValueError, TypeError):
            return None
        claim = Claim(user_id, stamp, datetime.fromtimestamp(until, UTC))
        return None if claim.expired else claim


def signing_key(given: str, folder: Path) -> str:
    """Return the key `given`, else the one kept in `folder`, made once, by whichever process is first.

    Raises:
        SettingsError: the key is too short to be one, or cannot be kept.
    """
    if given:
        if len(given) < _SHORTEST:
            raise SettingsError(f"INSPECTLINE_SECRET_KEY has {len(given)} characters: give a random one of {_SHORTEST}")
        return given
    path = folder / "secret.key"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".secret-", dir=folder)  # with mode 0600
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(48))
                    file.flush()
                    os.fsync(file.fileno())
                with suppress(FileExistsError):  # another process was faster: its key holds
                    os.link(name, path)
            finally:
                os.unlink(name)
        key = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise SettingsError(f"{path}: the signing key cannot be kept ({error}); set INSPECTLINE_SECRET_KEY") from error
    if len(key) < _SHORTEST:
        raise SettingsError(f"{path}: holds no signing key; delete it, and a new one is made")
    return key
