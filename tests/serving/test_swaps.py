"""Models change under load, and nobody notices but by the version: real gunicorn, real registry."""

import itertools
import threading
import time
from pathlib import Path

import pytest
import requests

from pipelines.package import Package, read_card, read_reference, write_card, write_reference
from tests.conftest import wait_until
from tests.serving.conftest import Registry, Relay, Server, until_rows


def swap_under_load(server: Server, registry: Registry, image: bytes, swaps: int, connections: int) -> None:
    """Promote versions in turn while `connections` clients predict; every answer must be whole and of one version."""
    thresholds = {registry.register(threshold=value, champion=False): value for value in (0.1, 0.2, 0.3)}
    turns = itertools.cycle(thresholds)
    registry.promote(next(turns))
    server.start().until_version("1")
    stop = threading.Event()
    answers: list[tuple[int, str, float]] = []
    failures: list[str] = []

    def client() -> None:
        session = requests.Session()
        while not stop.is_set():
            try:
                answer = session.post(f"{server.address}/predict", files={"file": image}, timeout=30)
                body = answer.json()
                answers.append((answer.status_code, body["model_version"], body["threshold"]))
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=client) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(swaps):
            version = next(turns)
            registry.promote(version)
            server.until_version(version, 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {status for status, _, _ in answers} == {200}
    assert all(thresholds[version] == threshold for _, version, threshold in answers)
    assert {version for _, version, _ in answers} == set(thresholds)
    print(f"{swaps} swaps, {connections} connections, {len(answers)} answers, no failed and no mixed one")
    recorded = until_rows(len(answers), 120)
    assert len(recorded) == len({row["request_id"] for row in recorded}) == len(answers)
    assert all(thresholds[row["model_version"]] == row["threshold"] for row in recorded)


def test_swaps_when_eight_clients_predict_then_none_fails_and_none_is_mixed(
    server: Server, registry: Registry, good_file: bytes
):
    swap_under_load(server, registry, good_file, swaps=6, connections=8)


@pytest.mark.soak
def test_swaps_when_a_hundred_under_32_clients_then_none_fails_and_none_is_mixed(
    server: Server, registry: Registry, good_file: bytes
):
    swap_under_load(server, registry, good_file, swaps=100, connections=32)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("altered", "sha256"), ("half uploaded", "model.onnx"), ("another project's", "made for project")],
)
def test_swap_when_new_version_is_bad_then_old_one_stays_and_status_names_it(
    server: Server, registry: Registry, good_file: bytes, kind: str, why: str
):
    good = registry.register()
    server.start().until_version(good)
    spoils = {
        "altered": lambda folder: (folder / "model.onnx").write_bytes(b"half"),
        "half uploaded": lambda folder: (folder / "model.onnx").unlink(),
        "another project's": lambda folder: None,
    }
    if kind == "another project's":
        bad = registry.register(champion=False, card_project="somebody_else")
    else:
        bad = registry.register(champion=False, spoil=spoils[kind])
    registry.promote(bad)
    wait_until(lambda: server.status()["refused"] is not None, 15, "refused version")
    refused = server.status()["refused"]
    assert refused["version"] == bad
    assert why in refused["why"]
    assert server.predict(good_file).json()["model_version"] == good
    better = registry.register()
    server.until_version(better)
    assert server.status()["refused"] is None


def test_swap_when_stored_example_scores_otherwise_then_refused(server: Server, registry: Registry, good_file: bytes):
    def shift(folder: Path) -> None:
        """Make the stored scores other than what the graph gives."""
        examples, arrays = Package.open(folder).examples, read_reference(folder / "reference.npz")
        card = read_card(folder).model_dump(exclude={"files", "onnx_sha256"})
        arrays["score"] += 0.05
        named = {name: list(arrays.pop(name)) for name in ("sha256", "descriptor_names")}
        plain = {name: arrays[name] for name in ("score", "embedding", "descriptors")}
        write_reference(folder, **plain, **named, examples=examples)
        write_card(folder, **card)

    good = registry.register()
    server.start().until_version(good)
    bad = registry.register(remake=shift)
    wait_until(lambda: server.status()["refused"] is not None, 15, "refused version")
    assert "stored example" in server.status()["refused"]["why"]
    assert server.status()["refused"]["version"] == bad
    assert server.predict(good_file).json()["model_version"] == good


def test_serving_when_registry_goes_away_then_it_goes_on_and_also_starts_again(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    with Relay(registry.address) as relay:
        server.start(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{relay.port}").until_version(version)
        relay.down()
        wait_until(lambda: server.status()["last_poll"]["problem"] is not None, 10, "a failed poll")
        assert "cannot be reached" in server.status()["last_poll"]["problem"]
        assert server.predict(good_file).json()["model_version"] == version
        assert server.end() == 0
        server.start()  # from the cache: ready before the port answers
        assert server.predict(good_file).json()["model_version"] == version
        newer = registry.register()
        relay.up()
        server.until_version(newer)
        assert server.status()["last_poll"]["problem"] is None


def test_start_when_cache_knows_another_life_of_the_registry_then_no_champion(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    server.start().until_version(version)
    registry.client.delete_registered_model_alias(registry.project, "champion")
    wait_until(lambda: server.status()["last_poll"]["problem"] is not None, 10, "alias gone")
    assert server.predict(good_file).status_code == 200  # what the registry once named stays
    server.end()
    server.start()
    wait_until(lambda: server.predict(good_file).status_code == 503, 10, "no champion")


def test_start_when_cached_model_is_damaged_then_fetched_again(
    server: Server, registry: Registry, cache: Path, good_file: bytes
):
    version = registry.register()
    server.start().until_version(version)
    server.end()
    next((cache / "models" / registry.project).glob("*/model.onnx")).write_bytes(b"half")
    server.start().until_version(version)
    assert server.predict(good_file).status_code == 200


def test_start_when_several_workers_then_they_agree(server: Server, registry: Registry, good_file: bytes):
    first = registry.register(threshold=0.1)
    server.start(INSPECTLINE_WORKERS="3").until_version(first)
    second = registry.register(threshold=0.2)
    deadline, agreed = time.monotonic() + 20, 0
    while agreed < 30:
        assert time.monotonic() < deadline
        answer = requests.post(f"{server.address}/predict", files={"file": good_file}, timeout=30)
        assert answer.status_code == 200
        assert (answer.json()["model_version"], answer.json()["threshold"]) in {(first, 0.1), (second, 0.2)}
        agreed = agreed + 1 if answer.json()["model_version"] == second else 0
