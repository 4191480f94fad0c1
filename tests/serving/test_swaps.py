"""Models change under load, and nobody notices but by the version: a real server, a real registry."""

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
import requests

from pipelines.registry.reference import read_reference, write_reference
from pipelines.tasks.anomaly.package import AnomalyPackage, read_card, write_card
from tests.conftest import Projects, wait_until
from tests.serving.conftest import Registry, Relay, Server, until_rows


def swap_under_load(
    server: Server,
    registry: Registry,
    projects: Projects,
    image: bytes,
    *,
    swaps: int,
    connections: int,
    by_hand: bool = False,
    workers: int = 1,
) -> None:
    """Swap versions in turn while `connections` clients predict; every answer must be whole and of one version.

    Versions differ in threshold and in how many validation images the p-value and the review threshold come from.
    `by_hand`, an administrator promotes over REST, and releases now and then; else the alias moves, as a run moves it.
    """
    projects.write(registry.project, threshold={"review_false_positive_rate": 0.2})
    sizes = {0.1: 20, 0.2: 24, 0.3: 30}
    thresholds = {
        registry.register(threshold=value, n_reference=size, seed=size, champion=False): value
        for value, size in sizes.items()
    }
    turns = itertools.cycle(thresholds)
    registry.promote(next(turns))
    server.start(INSPECTLINE_WORKERS=str(workers)).until_version("1")
    wait_until(lambda: takings(server) == workers, 20, "the first version in all workers")
    stop = threading.Event()
    answers: list[tuple[int, dict[str, Any]]] = []
    failures: list[str] = []

    def client() -> None:
        session = requests.Session()
        while not stop.is_set():
            try:
                answer = session.post(f"{server.address}/predict", files={"file": image}, timeout=30)
                answers.append((answer.status_code, answer.json()))
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    def choose(number: int, version: str) -> None:
        if not by_hand:
            registry.promote(version)
            return
        assert requests.post(f"{server.address}/models/{version}/promote", timeout=60).status_code == 200
        if number % 3 == 2:
            assert requests.post(f"{server.address}/models/release", timeout=60).status_code == 200

    threads = [threading.Thread(target=client) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        for number in range(swaps):
            version = next(turns)
            choose(number, version)
            server.until_version(version, 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {status for status, _ in answers} == {200}
    # One image: whatever depends on the version alone is the same in all its answers.
    combinations = {
        (answer["model_version"], answer["threshold"], answer["review_threshold"], answer["p_value"], answer["verdict"])
        for _, answer in answers
    }
    assert len(combinations) == len(thresholds), combinations
    assert len({review for _, _, review, _, _ in combinations}) == len(thresholds)
    for version, threshold, _, p_value, _ in combinations:
        assert thresholds[version] == threshold
        assert p_value * (sizes[threshold] + 1) == pytest.approx(round(p_value * (sizes[threshold] + 1)))
    how = f"{'by hand, ' if by_hand else ''}{workers} worker(s)"
    print(f"{swaps} swaps, {how}, {connections} connections, {len(answers)} answers, no failed and no mixed one")
    recorded = until_rows(len(answers), 120)
    assert len(recorded) == len({row["request_id"] for row in recorded}) == len(answers)
    assert all(thresholds[row["model_version"]] == row["threshold"] for row in recorded)


def takings(server: Server) -> int:
    """Return how many times a worker has taken a version."""
    return sum(line["message"] == "version taken" for line in server.lines())


def test_swaps_when_eight_clients_predict_then_none_fails_and_none_is_mixed(
    server: Server, registry: Registry, projects: Projects, good_file: bytes
):
    swap_under_load(server, registry, projects, good_file, swaps=5, connections=8)


def test_swaps_when_chosen_by_hand_before_two_workers_then_none_fails_and_none_is_mixed(
    server: Server, registry: Registry, projects: Projects, good_file: bytes
):
    swap_under_load(server, registry, projects, good_file, swaps=3, connections=8, by_hand=True, workers=2)


@pytest.mark.soak
@pytest.mark.parametrize(("by_hand", "workers"), [(False, 1), (False, 2), (True, 2)])
def test_swaps_when_a_hundred_under_32_clients_then_none_fails_and_none_is_mixed(
    server: Server, registry: Registry, projects: Projects, good_file: bytes, by_hand: bool, workers: int
):
    swap_under_load(server, registry, projects, good_file, swaps=100, connections=32, by_hand=by_hand, workers=workers)


def test_swap_when_half_uploaded_version_is_completed_then_it_is_taken(
    server: Server, registry: Registry, good_file: bytes, tmp_path: Path
):
    good = registry.register()
    server.start().until_version(good)
    aside = tmp_path / "model.onnx"
    half = registry.register(threshold=0.2, spoil=lambda folder: (folder / "model.onnx").rename(aside))
    wait_until(lambda: server.status()["refused"] is not None, 15, "refused version")
    assert server.status()["refused"]["version"] == half
    assert server.predict(good_file).json()["model_version"] == good
    run = registry.client.get_model_version(registry.project, half).run_id
    registry.client.log_artifact(run, str(aside), "model")
    server.until_version(half, 40)
    assert server.status()["refused"] is None
    assert server.predict(good_file).json()["threshold"] == 0.2


def of_a_later_onnx(folder: Path) -> None:
    """Make the package whole and right, but for a runtime that is not there yet."""
    card = read_card(folder).model_dump(exclude={"files", "onnx_sha256"})
    graph = onnx.load(folder / "model.onnx")
    graph.ir_version = 99
    onnx.save(graph, folder / "model.onnx")
    write_card(folder, **card)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("altered", "sha256"),
        ("half uploaded", "model.onnx"),
        ("another project's", "made for project"),
        ("of a later ONNX", "IR version"),
    ],
)
def test_swap_when_new_version_is_bad_then_old_one_stays_and_status_names_it(
    server: Server, registry: Registry, good_file: bytes, kind: str, why: str
):
    good = registry.register()
    server.start().until_version(good)
    spoils = {
        "altered": lambda folder: (folder / "model.onnx").write_bytes(b"half"),
        "half uploaded": lambda folder: (folder / "model.onnx").unlink(),
    }
    if kind == "of a later ONNX":
        bad = registry.register(champion=False, remake=of_a_later_onnx)
    elif kind == "another project's":
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
        examples, arrays = AnomalyPackage.open(folder).examples, read_reference(folder / "reference.npz")
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
    wait_until(lambda: takings(server) == 3, 20, "the first version in all workers")
    second = registry.register(threshold=0.2)
    deadline, agreed = time.monotonic() + 20, 0
    while agreed < 30:
        assert time.monotonic() < deadline
        answer = requests.post(f"{server.address}/predict", files={"file": good_file}, timeout=30)
        assert answer.status_code == 200
        assert (answer.json()["model_version"], answer.json()["threshold"]) in {(first, 0.1), (second, 0.2)}
        agreed = agreed + 1 if answer.json()["model_version"] == second else 0
