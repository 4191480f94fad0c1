"""Who guesses passwords is slowed, and whoever logged in from somewhere before is let in there, whatever others do."""

import threading
import time

import requests
from sqlalchemy import select

from pipelines.catalogue import connect, transaction, users
from pipelines.catalogue.schema import login_addresses
from serving.auth.authentication import SLOWED_SECONDS
from serving.auth.login_rate_limit import PER_ACCOUNT, PER_ADDRESS, PER_PAIR
from tests.conftest import wait_until
from tests.serving.auth.conftest import ANN, Guarded
from tests.serving.conftest import hashed

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.1"


def ask(guarded: Guarded, remote: str, password: str = ANN[1]) -> requests.Response:
    """Make a call as Ann, by HTTP Basic."""
    return guarded.call("GET", "/user", (ANN[0], password), remote=remote)


def exhaust(guarded: Guarded, remote: str, count: int = PER_PAIR) -> None:
    """Guess until the limit is reached."""
    statuses = [ask(guarded, remote, f"guess {number}").status_code for number in range(count)]
    assert statuses == [401] * count


def test_owner_when_guesses_come_from_the_same_address_then_enters_and_also_after_a_restart(guarded: Guarded):
    guarded.server.start(INSPECTLINE_PROXIES="1")
    assert ask(guarded, HOME).ok
    for _ in range(2):
        exhaust(guarded, HOME)
        assert ask(guarded, HOME, "one more guess").status_code == 429
        assert ask(guarded, HOME).ok
        assert guarded.login(*ANN, remote=HOME).ok
        assert guarded.call("GET", "/user", ("ANN", ANN[1]), remote=HOME).ok  # not a header that is remembered
        guarded.server.end()
        guarded.server.start()


def test_owner_when_guesses_come_from_elsewhere_then_enters_everywhere_but_there(guarded: Guarded):
    guarded.server.start(INSPECTLINE_PROXIES="1")
    assert ask(guarded, HOME).ok
    exhaust(guarded, ELSEWHERE)
    refused = ask(guarded, ELSEWHERE, "one more guess")
    assert (refused.status_code, 0 < int(refused.headers["Retry-After"]) <= 300) == (429, True)
    assert ask(guarded, HOME).ok
    assert ask(guarded, "203.0.113.5").ok


def test_address_when_limited_then_a_right_password_is_answered_as_a_wrong_one(guarded: Guarded):
    guarded.server.start(INSPECTLINE_PROXIES="1")
    assert ask(guarded, HOME).ok  # remembered, but for HOME
    exhaust(guarded, ELSEWHERE)
    began = guarded.server.cpu_seconds()
    told = set()
    for password in ["a guess", ANN[1]] * 10:
        by_basic = ask(guarded, ELSEWHERE, password)
        by_login = guarded.login(ANN[0], password, remote=ELSEWHERE)
        told |= {(answer.status_code, answer.json()["error"]) for answer in (by_basic, by_login)}
    assert told == {(429, "too many wrong passwords: wait, and try again")}
    assert guarded.server.cpu_seconds() - began < 1  # argon2 was not asked 40 times


def test_address_when_it_guesses_at_many_accounts_then_limited_for_all_but_those_used_there(guarded: Guarded):
    guarded.server.start(INSPECTLINE_PROXIES="1")
    assert ask(guarded, HOME).ok
    for number in range(PER_ADDRESS):
        assert guarded.login(f"nobody-{number}", "a guess", remote=HOME).status_code == 401
    assert guarded.login("nobody", "a guess", remote=HOME).status_code == 429
    assert guarded.login(*ANN, remote=HOME).ok


def test_account_when_guessed_from_many_addresses_then_slowed_but_not_where_it_was_used(guarded: Guarded):
    guarded.server.start(INSPECTLINE_PROXIES="1")
    assert ask(guarded, HOME).ok
    statuses = [ask(guarded, f"198.51.100.{number}", "a guess").status_code for number in range(PER_ACCOUNT + 3)]
    assert statuses == [401] * PER_ACCOUNT + [429] * 3
    assert guarded.login(*ANN, remote=HOME).ok


def test_owner_when_many_guess_at_the_same_address_at_once_then_enters_soon_and_guesses_cost_little(guarded: Guarded):
    guarded.server.start(INSPECTLINE_PROXIES="1")
    assert ask(guarded, HOME).ok
    guarded.server.end()
    guarded.server.start()  # nothing is remembered
    exhaust(guarded, HOME)
    stop, answered = threading.Event(), []

    def guess(number: int) -> None:
        while not stop.is_set():
            answered.append(guarded.login(ANN[0], f"guess {number} {len(answered)}", remote=HOME).status_code)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    began, cpu = time.monotonic(), guarded.server.cpu_seconds()
    try:
        for _ in range(5):
            asked = time.monotonic()
            assert guarded.login(*ANN, remote=HOME).ok
            assert time.monotonic() - asked < 5
        wait_until(lambda: len(answered) >= 24, 20, "guesses answered")
        time.sleep(1)
    finally:
        stop.set()
        seconds, guesses, used = time.monotonic() - began, len(answered), guarded.server.cpu_seconds() - cpu
        for thread in threads:
            thread.join()
    assert set(answered) == {429}
    assert guesses <= len(threads) * (seconds / SLOWED_SECONDS + 1)
    assert used < 0.5 * seconds + 2


def test_owner_when_the_password_or_the_key_has_changed_then_still_enters_there(guarded: Guarded):
    guarded.server.start(INSPECTLINE_PROXIES="1", INSPECTLINE_SECRET_KEY="k" * 40)
    assert ask(guarded, HOME).ok
    with transaction() as connection:
        users.change(connection, ANN[0], password_hash=hashed("another password"))
    guarded.server.end()
    guarded.server.start(INSPECTLINE_SECRET_KEY="n" * 40)
    exhaust(guarded, HOME)
    assert ask(guarded, HOME, "one more guess").status_code == 429
    assert ask(guarded, HOME, "another password").ok
    assert ask(guarded, HOME).status_code == 429  # the old one


def test_password_when_changed_then_the_remembered_old_one_no_longer_enters(guarded: Guarded):
    guarded.server.start()
    assert guarded.call("GET", "/user", ANN).ok
    changed = {"password": "another password", "current_password": ANN[1]}
    assert guarded.call("PATCH", "/users/Ann", ANN, json=changed).ok
    assert guarded.call("GET", "/user", ANN).status_code == 401
    assert guarded.call("GET", "/user", (ANN[0], "another password")).ok


def test_addresses_when_noted_then_one_row_each_and_no_password(guarded: Guarded):
    guarded.server.start(INSPECTLINE_PROXIES="1")
    for remote in (HOME, "2001:db8::1", "2001:db8::2", HOME):
        assert guarded.login(*ANN, remote=remote).ok
    assert guarded.login(ANN[0], "a guess", remote=ELSEWHERE).status_code == 401
    with connect() as connection:
        rows = connection.execute(select(login_addresses)).all()
    assert sorted(row.network for row in rows) == [HOME, "2001:db8::/64"]
    assert ANN[1] not in str(rows)


def test_basic_when_in_utf8_or_latin1_then_the_same_account(guarded: Guarded):
    password = "Schlüssel für Prüfstand"
    with transaction() as connection:
        users.add(connection, "Jörg", hashed(password))
    guarded.server.start()
    for name in ("Jörg", "JÖRG"):
        for encoding in ("utf-8", "latin-1"):
            assert guarded.call("GET", "/user", (name.encode(encoding), password.encode(encoding))).ok, encoding
    assert guarded.call("GET", "/user", ("Jörg", password)).ok  # as `requests` does it by itself
    assert guarded.call("GET", "/user", ("Jörg", password.replace("ü", "ä"))).status_code == 401
    broken = "Basic " + "/////w=="
    assert guarded.call("GET", "/user", headers={"Authorization": broken}).status_code == 401


def test_basic_when_the_password_has_a_euro_sign_then_windows_clients_enter_too(guarded: Guarded):
    password = "zwölf € oder mehr"
    with transaction() as connection:
        users.add(connection, "kasse", hashed(password))
    guarded.server.start()
    for encoding in ("utf-8", "cp1252"):
        assert guarded.call("GET", "/user", (b"kasse", password.encode(encoding))).ok, encoding
