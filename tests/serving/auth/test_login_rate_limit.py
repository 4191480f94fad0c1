"""Wrong passwords are limited, and nobody locks out who logged in before; tokens hold as long as they say."""

import threading
from pathlib import Path

import pytest

from pipelines.errors import SettingsError
from serving.auth import login_rate_limit
from serving.auth.login_rate_limit import PER_ACCOUNT, PER_ADDRESS, WINDOW, LoginLimits
from serving.auth.tokens import Tokens, signing_key


class Clock:
    """Time that stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_account_when_guessed_from_many_addresses_then_it_waits_but_not_where_it_was_used_before():
    clock = Clock()
    limits = LoginLimits(clock)
    limits.succeeded("ann", "10.0.0.1")
    for number in range(PER_ACCOUNT):
        assert limits.wait_seconds("ann", f"192.0.2.{number}") == 0
        limits.failed("ann", f"192.0.2.{number}")
    assert limits.wait_seconds("ann", "198.51.100.7") == WINDOW
    assert limits.wait_seconds("ann", "10.0.0.1") == 0
    assert limits.wait_seconds("ben", "198.51.100.7") == 0
    clock.now += WINDOW
    assert limits.wait_seconds("ann", "198.51.100.7") == 0


def test_address_when_it_guesses_many_names_then_it_waits_and_ipv6_counts_by_network():
    limits = LoginLimits(Clock())
    for number in range(PER_ADDRESS):
        limits.failed(f"name{number}", f"2001:db8::{number:x}")
    assert limits.wait_seconds("ann", "2001:db8::ffff") == WINDOW
    assert limits.wait_seconds("ann", "2001:db8:0:1::1") == 0


def test_known_address_when_it_guesses_itself_then_it_waits_too():
    limits = LoginLimits(Clock())
    limits.succeeded("ann", "10.0.0.1")
    for _ in range(PER_ACCOUNT):
        limits.failed("ann", "10.0.0.1")
    assert limits.wait_seconds("ann", "10.0.0.1") == WINDOW


def test_limits_when_names_are_without_number_then_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(login_rate_limit, "_KEPT", 50)
    limits = LoginLimits(Clock())
    for number in range(500):
        limits.failed(f"name{number}", f"10.0.{number % 256}.{number // 256}")
        limits.succeeded(f"name{number}", "10.0.0.1")
    assert len(limits._failures) <= 50
    assert len(limits._used) <= 50


def test_token_when_altered_foreign_or_over_then_none():
    tokens = Tokens("k" * 40, hours=1)
    token, _ = tokens.issue(7, "stamp")
    claim = tokens.read(token)
    assert claim is not None
    assert (claim.user_id, claim.stamp, claim.expired) == (7, "stamp", False)
    assert Tokens("x" * 40, hours=1).read(token) is None
    assert tokens.read(token[:-2]) is None
    assert tokens.read("") is None
    assert tokens.read("é" * 5000) is None
    assert Tokens("k" * 40, hours=-1).read(Tokens("k" * 40, hours=-1).issue(7, "stamp")[0]) is None


def test_signing_key_when_none_is_given_then_one_is_made_once_for_all_processes(tmp_path: Path):
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.append(signing_key("", tmp_path / "cache"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1
    assert len(keys) == 8
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["secret.key"]
    assert (tmp_path / "cache" / "secret.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="INSPECTLINE_SECRET_KEY"):
        signing_key("short", tmp_path)
