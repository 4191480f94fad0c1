"""What keeps argon2 from being a denial of service: a filter in front of it, and turns."""

import threading
import time

import pytest

from serving.auth.hashing_turn import HashingTurn
from serving.auth.password_filter import PasswordFilter
from serving.refusals import Refusal


def test_filter_when_the_password_is_right_then_it_passes_and_few_others_do():
    passwords = PasswordFilter("k" * 40)
    kept = passwords.of("hash", "Schlüssel der Anlage")
    assert passwords.holds(kept, "hash")
    assert passwords.passes(kept, "hash", "Schlu\u0308ssel der Anlage")  # in another normalisation form
    passed = sum(passwords.passes(kept, "hash", f"guess {number}") for number in range(10_000))
    assert passed < 50


def test_filter_when_password_hash_or_key_is_another_then_it_says_nothing():
    kept = PasswordFilter("k" * 40).of("hash", "password")
    assert not PasswordFilter("k" * 40).holds(kept, "other hash")
    assert not PasswordFilter("n" * 40).holds(kept, "hash")
    for broken in ("", ".", "é.123", kept.partition(".")[2]):
        assert not PasswordFilter("k" * 40).holds(broken, "hash")


def test_turn_when_many_wait_then_the_preferred_go_first_and_the_rest_is_turned_away():
    turn, order, threads = HashingTurn(waiting=2, seconds=10), [], []

    def wait(name: str, preferred: bool) -> None:
        with turn.take(preferred=preferred):
            order.append(name)

    with turn.take():
        for name, preferred in (("first", False), ("second", False), ("owner", True)):
            threads.append(threading.Thread(target=wait, args=(name, preferred)))
            threads[-1].start()
            time.sleep(0.1)
        with pytest.raises(Refusal) as refused, turn.take():
            pass
        assert refused.value.status == 503
    for thread in threads:
        thread.join()
    assert order[0] == "owner"
    assert sorted(order[1:]) == ["first", "second"]


def test_turn_when_it_does_not_come_in_time_then_503_and_others_go_on():
    turn = HashingTurn(waiting=2, seconds=0.1)
    with turn.take():
        for preferred in (True, False):
            with pytest.raises(Refusal), turn.take(preferred=preferred):
                pass
    with turn.take():
        pass
