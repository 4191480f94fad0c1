"""Who may call what: a real server, real accounts in a real database, over HTTP."""

import pytest
import requests

from pipelines.catalogue import connect, users
from serving.auth.login_rate_limit import PER_PAIR
from tests.conftest import wait_until
from tests.serving.auth.conftest import ANN, PASSWORD, ROOT, Guarded, fill
from tests.serving.conftest import Relay


def test_calls_when_made_without_rights_then_401_or_403_and_open_ones_answer(guarded: Guarded):
    guarded.server.start()
    for path in ("/status", "/health/live", "/projects/line/status"):
        assert guarded.call("GET", path).status_code == 200
    assert guarded.call("GET", "/health/ready").status_code == 503
    assert guarded.call("GET", "/nothing").status_code == 404
    for method, path in (("GET", "/user"), ("POST", "/predict"), ("POST", "/projects/line/predict"), ("GET", "/users")):
        answer = guarded.call(method, path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    for method, path in (("GET", "/users"), ("POST", "/users"), ("DELETE", "/users/root"), ("PATCH", "/users/root")):
        answer = guarded.call(method, path, ANN, json={"role": "administrator"})
        assert (answer.status_code, "administrators" in answer.json()["error"]) == (403, True)
    assert guarded.call("GET", "/user", ANN).json() == {"name": "Ann", "role": "user"}
    assert guarded.call("GET", "/user", ("ANN", ANN[1])).json()["name"] == "Ann"
    assert guarded.call("POST", "/predict", ANN).status_code == 503  # there is no model

    wrong = [
        ("Ann", "not the password"),
        ("nobody", "not the password"),
        ("Ann", ""),
        ("", ""),
        ("nobody\x00", "x" * 900),
    ]
    refusals = {(a.status_code, a.json()["error"]) for a in (guarded.call("GET", "/user", pair) for pair in wrong)}
    assert refusals == {(401, "name or password is wrong, or the account is disabled")}
    for header in ("Basic !!!", "Basic YQ==", "Bearer x.y", "Digest a", "Bearer", "Basic " + "A" * 5000):
        assert guarded.call("GET", "/user", headers={"Authorization": header}).status_code == 401
    guarded.server.end()
    for secret in (PASSWORD, "not the password"):
        assert secret not in guarded.output()


def test_unknown_account_when_tried_then_it_takes_as_much_work_as_a_wrong_password(guarded: Guarded):
    guarded.server.start()
    taken = dict.fromkeys(("Ann", "nobody"), 0.0)
    for _ in range(PER_PAIR):
        for name in taken:
            before = guarded.server.cpu_seconds()
            assert guarded.login(name, "not the password").status_code == 401
            taken[name] += guarded.server.cpu_seconds() - before
    assert taken["Ann"] > 0.1
    assert 0.5 < taken["Ann"] / taken["nobody"] < 2


def test_login_when_right_then_the_token_works_also_after_a_restart_until_the_password_changes(guarded: Guarded):
    guarded.server.start()
    answer = guarded.login("ann", ANN[1])
    body = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert (body["token_type"], body["name"], body["role"]) == ("Bearer", "Ann", "user")
    assert guarded.call("GET", "/user", token=body["token"]).json()["name"] == "Ann"
    assert guarded.server.end() == 0
    guarded.server.start(INSPECTLINE_WORKERS="2")  # the signing key was kept
    for _ in range(6):
        assert guarded.call("GET", "/user", token=body["token"]).status_code == 200
    assert guarded.server.end() == 0
    guarded.server.start(INSPECTLINE_WORKERS="1")
    assert guarded.call("GET", "/user", token=body["token"]).status_code == 200
    new = {"password": "another password", "current_password": ANN[1]}
    assert guarded.call("PATCH", "/users/Ann", token=body["token"], json=new).status_code == 200
    assert guarded.call("GET", "/user", token=body["token"]).status_code == 401
    assert guarded.call("GET", "/user", ANN).status_code == 401
    assert guarded.call("GET", "/user", ("Ann", "another password")).status_code == 200
    guarded.server.end()
    for secret in ("another password", ANN[1], body["token"]):
        assert secret not in guarded.output()


def test_accounts_when_an_administrator_manages_them_then_they_are_made_changed_and_deleted(guarded: Guarded):
    guarded.server.start()
    created = guarded.call("POST", "/users", ROOT, json={"Name": "José", "PASSWORD": "password of josé"})
    assert created.status_code == 201
    assert created.headers["Location"] == "/users/Jos%C3%A9"
    assert created.json() | {"created_at": "", "password_changed_at": ""} == {
        "name": "José", "role": "user", "disabled": False, "created_at": "", "password_changed_at": "",
    }  # fmt: skip
    jose = ("José".encode(), "password of josé".encode())
    token = guarded.login("josé", "password of josé").json()["token"]
    assert guarded.call("GET", "/user", jose).status_code == 200
    assert [user["name"] for user in guarded.call("GET", "/users", ROOT).json()["users"]] == ["Ann", "José", "root"]
    for body, status in (
        ({"name": "JOSÉ", "password": "password of josé"}, 409),
        ({"name": "ben", "password": "short"}, 400),
        ({"name": "ben ben", "password": "password of ben"}, 400),
        ({"name": "ben", "password": "password of ben", "role": "king"}, 400),
        ({"name": "ben", "password": 12}, 400),
        ({"name": "ben", "pass": "password of ben"}, 400),
        ([], 400),
    ):
        assert guarded.call("POST", "/users", ROOT, json=body).status_code == status, body
    assert guarded.call("PATCH", "/users/Jos%C3%A9", ROOT, json={"disabled": True}).json()["disabled"] is True
    assert guarded.call("GET", "/user", jose).status_code == 401
    assert guarded.call("GET", "/user", token=token).status_code == 401
    assert guarded.call("PATCH", "/users/josé", ROOT, json={"disabled": False, "role": "administrator"}).ok
    assert guarded.call("GET", "/user", jose).json()["role"] == "administrator"
    assert guarded.call("GET", "/user", token=token).status_code == 401
    assert guarded.call("DELETE", "/users/JOSÉ", jose).json()["deleted"] is True
    assert guarded.call("GET", "/user", jose).status_code == 401
    assert guarded.call("DELETE", "/users/josé", ROOT).status_code == 404
    for method, body in (("PATCH", {"role": "user"}), ("PATCH", {"disabled": True}), ("DELETE", None)):
        answer = guarded.call(method, "/users/root", ROOT, json=body)
        assert (answer.status_code, "last administrator" in answer.json()["error"]) == (409, True)
    assert guarded.call("PATCH", "/users/root", ROOT, json={"disabled": "yes"}).status_code == 400
    assert guarded.call("PATCH", "/users/root", ROOT, json={}).status_code == 400
    assert guarded.call("PATCH", "/users/nobody", ROOT, json={"role": "user"}).status_code == 404


def test_own_password_when_changed_then_the_current_one_is_asked_for(guarded: Guarded):
    guarded.server.start()
    token = guarded.login(*ANN).json()["token"]
    for body, status in (
        ({"password": "another password"}, 400),
        ({"password": "another password", "current_password": "not the password"}, 403),
        ({"password": "short", "current_password": ANN[1]}, 400),
        ({"current_password": ANN[1]}, 400),
        ({"password": "another password", "current_password": ANN[1], "role": "administrator"}, 403),
        ({"password": "another password", "current_password": ANN[1]}, 200),
    ):
        assert guarded.call("PATCH", "/users/ann", token=token, json=body).status_code == status, body
    assert (
        guarded.call("PATCH", "/users/root", ("Ann", "another password"), json={"password": "x" * 12}).status_code
        == 403
    )


def test_basic_when_used_again_then_argon2_is_not_paid_again(guarded: Guarded):
    guarded.server.start()
    assert guarded.call("GET", "/user", ANN).ok
    began = guarded.server.cpu_seconds()
    for _ in range(10):
        assert guarded.login(*ANN).ok
    hashing = guarded.server.cpu_seconds() - began
    session = requests.Session()
    for _ in range(10):
        assert session.get(f"{guarded.server.address}/user", auth=ANN, timeout=10).ok
    assert guarded.server.cpu_seconds() - began - hashing < hashing / 3


def test_accounts_when_the_database_is_away_then_the_remembered_go_on_and_others_get_503(
    guarded: Guarded, postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    from pipelines.catalogue import engine, migrate

    with Relay("http://" + postgres_url.rpartition("@")[2].rpartition("/")[0]) as relay:
        url = f"postgresql+psycopg://inspectline@127.0.0.1:{relay.port}/{postgres_url.rpartition('/')[2]}"
        monkeypatch.setenv("INSPECTLINE_DATABASE_URL", url)
        migrate()
        fill()
        guarded.server.start()
        token = guarded.login(*ANN).json()["token"]
        assert guarded.call("GET", "/user", token=token).ok
        assert guarded.call("GET", "/user", ANN).ok
        for name in ("nobody\x00", "\ud800", "no body"):  # the database could not be asked for some of these
            assert guarded.login(name, PASSWORD).status_code == 401
        assert guarded.call("PATCH", "/users/a%00b", ROOT, json={"role": "user"}).status_code == 404
        guarded.server.end()
        guarded.server.start()  # remembers nobody
        assert guarded.call("GET", "/user", token=token).ok
        assert guarded.call("GET", "/user", ANN).ok
        relay.down()
        assert guarded.call("GET", "/user", token=token).ok
        assert guarded.call("GET", "/user", ANN).ok
        answer = guarded.call("GET", "/user", ROOT)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert guarded.login(*ROOT).status_code == 503
        assert PASSWORD not in guarded.output()
        relay.up()
        wait_until(lambda: guarded.call("GET", "/user", ROOT).ok, 20, "the database again")
        engine().dispose()


def test_serving_when_auth_is_none_then_open_and_said_loudly(guarded: Guarded):
    guarded.server.start(INSPECTLINE_AUTH="none")
    assert guarded.call("GET", "/user").json() == {"name": "anonymous", "role": "administrator"}
    assert guarded.call("GET", "/users").status_code == 200
    (line,) = [line for line in guarded.server.lines() if "INSPECTLINE_AUTH is none" in line["message"]]
    assert line["level"] == "warning"
    with connect() as connection:
        assert len(users.every(connection)) == 2
