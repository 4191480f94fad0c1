"""Wrong passwords are counted by account and address, used addresses apart; tokens hold as long as they say."""

import threading
from pathlib import Path

import pytest

from pipelines.errors import SettingsError
from serving.auth import login_rate_limit
from serving.auth.login_rate_limit import PER_ACCOUNT, PER_ADDRESS, PER_PAIR, WINDOW, LoginLimits, network_of
from serving.auth.tokens import Tokens, signing_key


class Clock:
    """Time that stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_account_when_guessed_at_one_address_then_it_waits_there_alone():
    clock = Clock()
    limits = LoginLimits(clock)
    for _ in range(PER_PAIR):
        assert limits.wait_seconds("ann", "192.0.2.1") == 0
        limits.failed("ann", "192.0.2.1")
    assert limits.wait_seconds("ann", "192.0.2.1") == WINDOW
    assert limits.wait_seconds("ann", "192.0.2.1", known=True) == 0
    assert limits.wait_seconds("ann", "198.51.100.7") == 0
    assert limits.wait_seconds("ben", "192.0.2.1") == 0
    clock.now += WINDOW
    assert limits.wait_seconds("ann", "192.0.2.1") == 0


def test_account_when_guessed_from_many_addresses_then_all_new_ones_wait():
    limits = LoginLimits(Clock())
    for number in range(PER_ACCOUNT):
        limits.failed("ann", f"192.0.2.{number}")
    assert limits.wait_seconds("ann", "198.51.100.7") == WINDOW
    assert limits.wait_seconds("ann", "198.51.100.7", known=True) == 0


def test_address_when_it_guesses_many_names_then_it_waits_but_not_for_an_account_used_there():
    limits = LoginLimits(Clock())
    for number in range(PER_ADDRESS):
        limits.failed(f"name{number}", "10.0.0.1")
    assert limits.wait_seconds("ann", "10.0.0.1") == WINDOW
    assert limits.wait_seconds("ann", "10.0.0.1", known=True) == 0


def test_known_address_when_it_guesses_itself_then_it_is_over_its_limit_too():
    limits = LoginLimits(Clock())
    for _ in range(PER_PAIR):
        limits.failed("ann", "10.0.0.1", known=True)
    assert limits.wait_seconds("ann", "10.0.0.1", known=True) == WINDOW
    assert limits.wait_seconds("ben", "10.0.0.1") == 0


@pytest.mark.parametrize(
    ("remote", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1%eth0", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("x" * 500, "x" * 64),
        ("", ""),
    ],
)
def test_network_when_addresses_are_of_one_machine_then_the_same(remote: str, network: str):
    assert network_of(remote) == network


def test_limits_when_names_are_without_number_then_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(login_rate_limit, "_KEPT", 50)
    limits = LoginLimits(Clock())
    for number in range(500):
        limits.failed(f"name{number}", f"10.0.{number % 256}.{number // 256}")
    assert len(limits._failures) <= 50


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
