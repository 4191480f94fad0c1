"""However a process ends, whatever is away for a while: no answered prediction is lost, none is doubled."""

import concurrent.futures
import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests

from pipelines.storage.s3 import Storage
from tests.conftest import Projects, wait_until
from tests.pipelines.packages import good_image
from tests.serving.conftest import Registry, Relay, Server, encoded, rows, until_rows
from tests.serving.test_slow_clients import answer_on


def send_until_killed(server: Server, clients: int, seconds: float) -> set[str]:
    """Predict with several clients for a while, kill -9 everything, and return the ids of all answers that came."""
    answered: set[str] = set()
    killed = threading.Event()

    def client(number: int) -> None:
        session, generator = requests.Session(), np.random.default_rng(number)
        while not killed.is_set():
            image = encoded(good_image(generator))
            try:
                answer = session.post(f"{server.address}/predict", files={"file": image}, timeout=10)
            except requests.RequestException:
                return
            if answer.status_code == 200:
                answered.add(answer.json()["request_id"])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    server.end(signal.SIGKILL)
    killed.set()
    for thread in threads:
        thread.join()
    return answered


def until_rows_of(answered: set[str], seconds: float) -> None:
    """Wait until the catalogue has every prediction that was answered."""
    wait_until(lambda: answered <= {row["request_id"] for row in rows()}, seconds, "all answered ones in the database")


def kill_and_restart(server: Server, registry: Registry, bucket: str, kills: int, seconds: float) -> None:
    """Kill -9 under load and start again, several times; every answer must be recorded once, with its image."""
    version = registry.register()
    answered: set[str] = set()
    for _ in range(kills):
        server.start().until_version(version)
        answered |= send_until_killed(server, clients=4, seconds=seconds)
    assert answered
    server.start()
    until_rows_of(answered, 10)
    wait_until(lambda: server.status()["journal"]["waiting"] == 0, 60, "empty journal")
    recorded = rows()
    assert answered <= {row["request_id"] for row in recorded}
    assert len({row["request_id"] for row in recorded}) == len(recorded)
    storage = Storage(bucket)
    assert all(storage.exists(row["image_key"]) for row in recorded)
    print(f"{kills} kills, {len(answered)} answers, {len(recorded)} recorded, none lost, none doubled")


def test_predictions_when_killed_then_the_next_start_catches_up(server: Server, registry: Registry, projects: Projects):
    kill_and_restart(server, registry, projects.bucket, kills=2, seconds=1.5)


@pytest.mark.soak
def test_predictions_when_killed_twenty_times_then_none_lost(server: Server, registry: Registry, projects: Projects):
    kill_and_restart(server, registry, projects.bucket, kills=20, seconds=3)


def test_predictions_when_s3_is_away_then_caught_up_later(
    server: Server, registry: Registry, s3: str, projects: Projects, good_file: bytes
):
    version = registry.register()
    with Relay(s3) as relay:
        server.start(AWS_ENDPOINT_URL=f"http://127.0.0.1:{relay.port}").until_version(version)
        relay.down()
        answers = [server.predict(good_file) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 5
        wait_until(lambda: server.status()["journal"]["problem"] is not None, 60, "S3 seen to be away")
        assert server.status()["journal"]["waiting"] == 5
        assert server.predict_url(f"s3://{projects.bucket}/{registry.project}/x.png").status_code == 503
        relay.up()
        assert {row["request_id"] for row in until_rows(5, 60)} == {answer.json()["request_id"] for answer in answers}


def test_predictions_when_database_is_away_then_caught_up_later(
    server: Server, registry: Registry, postgres: str, good_file: bytes
):
    version = registry.register()
    host = postgres.partition("@")[2].partition("/")[0]
    with Relay(f"http://{host}") as relay:
        away = postgres.replace(host, f"127.0.0.1:{relay.port}")
        server.start(INSPECTLINE_DATABASE_URL=away).until_version(version)
        first = server.predict(good_file).json()["request_id"]
        until_rows(1)
        relay.down()
        second = server.predict(good_file).json()["request_id"]
        wait_until(lambda: server.status()["journal"]["problem"] is not None, 30, "database seen to be away")
        assert server.end() == 0
        server.start()  # with the database still away
        third = server.predict(good_file).json()["request_id"]
        assert server.status()["journal"]["waiting"] == 2
        relay.up()
        assert [row["request_id"] for row in until_rows(3, 60)] == [first, second, third]


def test_sigterm_when_requests_are_under_way_then_all_are_answered(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    server.start().until_version(version)
    idle = requests.Session()
    idle.get(f"{server.address}/status", timeout=5)  # a client that stays connected must not hold up the end
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        under_way = [
            pool.submit(requests.post, f"{server.address}/predict", files={"file": good_file}, timeout=30)
            for _ in range(8)
        ]
        # Once the first answer is there, the others have been accepted.
        concurrent.futures.wait(under_way, return_when=concurrent.futures.FIRST_COMPLETED)
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 10
        answers = [one.result() for one in under_way]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len(until_rows(8)) == 8  # written before the end, or else by nobody: no process is left


def test_sigterm_when_clients_ask_again_and_again_then_no_request_is_lost(server: Server, registry: Registry):
    server.start().until_version(registry.register())
    host, port = server.address.removeprefix("http://").split(":")
    asking = threading.Barrier(17)

    def ask() -> int:
        """Ask until the server says that an answer is the last, and return its status."""
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        asked = 0
        while True:
            connection.request("GET", "/status")
            answer = connection.getresponse()  # raises if there is none
            answer.read()
            asked += 1
            if answer.getheader("Connection") == "close":
                return answer.status
            if asked == 3:
                asking.wait(30)
            time.sleep(0.02)

    with ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(ask) for _ in range(16)]
        asking.wait(30)
        assert server.end() == 0
        assert [client.result() for client in clients] == [200] * 16


def test_sigterm_when_a_client_has_sent_nothing_then_it_does_not_hold_up_the_end(server: Server, registry: Registry):
    server.start().until_version(registry.register())
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as silent:
        time.sleep(1)  # no thread waits for it any more
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 10
        assert silent.recv(1) == b""


def test_sigterm_when_clients_stand_in_line_then_they_are_answered(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    server.start().until_version(version)
    assert server.process is not None
    worker = server.workers()[0]
    os.kill(worker, signal.SIGSTOP)  # it accepts nobody
    host, port = server.address.removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(good_file)}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(20)]
        for client in clients:
            client.sendall(head.encode() + good_file)
        server.process.send_signal(signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)
        answers = [client.recv(65536) for client in clients]
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 20
    assert server.process.wait(timeout=30) == 0
    assert len(rows()) == 20


def test_sigterm_when_an_upload_and_many_images_are_under_way_then_both_are_finished(
    server: Server, registry: Registry, cache: Path
):
    version = registry.register()
    server.start().until_version(version)
    assert server.process is not None
    generator = np.random.default_rng(5)
    many = [("file", (f"{number}.png", encoded(good_image(generator)))) for number in range(64)]
    slow = encoded(good_image(generator))
    host, port = server.address.removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(slow)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as upload, ThreadPoolExecutor(1) as pool:
        upload.sendall(head.encode() + slow[:1000])
        batch = pool.submit(requests.post, f"{server.address}/predict", files=many, timeout=60)
        # An image of the batch is in the journal: it is under way, and the upload, sent before, has been taken, too.
        wal = cache / "journal" / "predictions.db-wal"
        wait_until(lambda: wal.exists() and wal.stat().st_size > 30_000, 30, "the batch begun")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "SIGTERM" in server.log.read_text(encoding="utf-8"), 10, "the end begun")
        for start in range(1000, len(slow), 8000):
            upload.sendall(slow[start : start + 8000])
            time.sleep(0.1)
        answer = upload.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b"\r\nconnection: close\r\n" in answer  # called alive, the client's next request would be lost
        told = batch.result().json()["predictions"]
    assert [one["model_version"] for one in told] == [version] * 64
    assert server.process.wait(timeout=30) == 0
    wait_for_rest = server.start()
    wait_until(lambda: wait_for_rest.status()["journal"]["waiting"] == 0, 30, "empty journal")
    assert len({row["request_id"] for row in rows()}) == len(rows()) == 65


def test_predict_when_journal_is_full_then_503_and_nothing_lost(
    server: Server, registry: Registry, tmp_path: Path, s3: str
):
    version = registry.register()
    generator = np.random.default_rng(3)
    with Relay(s3) as relay:
        server.start(AWS_ENDPOINT_URL=f"http://127.0.0.1:{relay.port}", INSPECTLINE_JOURNAL_MAX_MB="1").until_version(
            version
        )
        relay.down()
        answered = []
        while (answer := server.predict(encoded(good_image(generator)))).status_code == 200:
            answered.append(answer.json()["request_id"])
            assert len(answered) < 100
        assert answer.status_code == 503
        assert "make room" in answer.json()["error"]
        assert answer.headers["Retry-After"]
        assert len(answered) > 10
        relay.up()
        assert {row["request_id"] for row in until_rows(len(answered), 60)} == set(answered)
        wait_until(lambda: server.predict(encoded(good_image(generator))).status_code == 200, 20, "room again")


def connect(server: Server) -> socket.socket:
    """Return a connection of its own."""
    host, port = server.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=40)


HEALTH = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def test_sigterm_when_many_clients_stay_connected_then_they_do_not_hold_up_the_end(server: Server):
    server.start()
    assert server.process is not None
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(300)]
        for client in clients[::2]:
            client.sendall(HEALTH)
            assert answer_on(client)[:2] == (200, "keep-alive")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        for client in clients[:20]:  # a silent or idle one may send one more request, and is told that it is the last
            client.sendall(HEALTH)
            assert answer_on(client)[:2] == (200, "close")
        assert server.process.wait(timeout=30) == 0
        assert time.monotonic() - began < 10
        for client in clients[20:]:
            assert client.recv(1) == b""


def test_sigterm_when_requests_go_no_further_then_they_are_given_up(server: Server):
    server.start()
    assert server.process is not None
    with connect(server) as head, connect(server) as refused:
        head.sendall(HEALTH[:20])
        # There is no model: refused before it has come.
        refused.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999999\r\n\r\n"
        )
        time.sleep(2)
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 15  # instead of 30
        assert head.recv(1) == b""
        assert refused.recv(65536).startswith(b"HTTP/1.1 503")


def test_sigterm_when_a_head_is_completed_soon_then_it_is_answered(server: Server):
    server.start()
    assert server.process is not None
    with connect(server) as client:
        client.sendall(HEALTH[:20])
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(2.5)
        client.sendall(HEALTH[20:])
        assert answer_on(client)[:2] == (200, "close")
    assert server.process.wait(timeout=30) == 0


def test_sigterm_when_an_upload_goes_no_further_then_it_is_told_so(server: Server, registry: Registry):
    server.start().until_version(registry.register())
    assert server.process is not None
    with connect(server) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nx")
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        status, _, body = answer_on(client)
        assert status == 408
        assert b"the server ends, and the request was not here in time: send it again" in body
    assert server.process.wait(timeout=30) == 0


def test_workers_when_their_supervisor_is_killed_then_they_end(server: Server):
    server.start(INSPECTLINE_WORKERS="2")
    assert server.process is not None
    workers = server.workers()
    assert len(workers) == 2
    # The first one answers while the second is still starting.
    wait_until(lambda: server.log.read_text(encoding="utf-8").count("startup complete") == 2, 60, "both workers")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(timeout=10)

    def gone() -> bool:
        """Tell whether none runs; an orphan that nobody reaps is a zombie."""
        states = [Path(f"/proc/{worker}/stat") for worker in workers]
        return all(not path.exists() or " Z " in path.read_text(encoding="ascii") for path in states)

    wait_until(gone, 20, "the workers' end")
    assert server.log.read_text(encoding="utf-8").count("ending: requests under way") == 2
