"""Shared runs: what queued meanwhile goes together, one bad item fails alone, a full queue says so."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipelines.registry.client import RegisteredVersion
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import predict, prepare_image
from serving.limits.decode_limiter import DecodingRoom
from serving.models.batching import Batches, Full, Late
from serving.models.served_models import load
from tests.conftest import wait_until
from tests.pipelines.packages import defective_image, good_image, make_package


class Gate:
    """Runs batches, but holds up the first until it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.opened = threading.Event()
        self.begun = threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.begun.set()
        assert self.opened.wait(10)
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


def test_result_when_many_wait_then_they_share_the_next_run_and_order_is_kept():
    gate, observed = Gate(), []
    batches = Batches(gate, most=4, room=64, observe=lambda size, queued: observed.append((size, queued)))
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(batches.result, 1)
        assert gate.begun.wait(10)
        others = []
        for item in range(2, 8):
            others.append(pool.submit(batches.result, item))
            wait_until(lambda count=item - 1: len(batches._waiting) == count, 10, "one more in the queue")
        gate.opened.set()
        assert [future.result(10) for future in (first, *others)] == [2, 4, 6, 8, 10, 12, 14]
    assert gate.batches == [[1], [2, 3, 4, 5], [6, 7]]
    assert observed == [(1, 0), (4, 2), (2, 0)]


def test_result_when_one_item_is_bad_then_it_fails_alone():
    gate = Gate()
    batches = Batches(gate, most=8, room=64)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(batches.result, 1)
        assert gate.begun.wait(10)
        others = {item: pool.submit(batches.result, item) for item in (12, 13, 14)}
        wait_until(lambda: len(batches._waiting) == 3, 10, "three in the queue")
        gate.opened.set()
        assert (first.result(10), others[12].result(10), others[14].result(10)) == (2, 24, 28)
        with pytest.raises(ValueError, match="thirteen"):
            others[13].result(10)
    assert batches.result(4) == 8


def test_result_when_the_queue_is_full_then_told_at_once():
    gate = Gate()
    batches = Batches(gate, most=8, room=2)
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(batches.result, 1)]
        assert gate.begun.wait(10)
        running += [pool.submit(batches.result, item) for item in (2, 3)]
        wait_until(lambda: len(batches._waiting) == 2, 10, "a full queue")
        with pytest.raises(Full):
            batches.result(4)
        gate.opened.set()
        assert [future.result(10) for future in running] == [2, 4, 6]


def test_result_when_thousands_come_from_many_threads_then_each_gets_its_own():
    batches = Batches(lambda items: [item * item for item in items], most=8, room=64)
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(batches.result, range(4000))) == [item * item for item in range(4000)]


def test_score_when_batched_by_serving_then_that_of_calibration(tmp_path):
    folder = make_package(tmp_path / "package")
    serving = load(RegisteredVersion("ev_batteries", "1"), folder, threads=2)
    generator = np.random.default_rng(5)
    images = [(good_image if number % 3 else defective_image)(generator, 96 + 8 * (number % 9)) for number in range(60)]
    alone = [predict(AnomalyPackage.open(folder), [image])[0] for image in images]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda image: serving.predict(prepare_image(serving.package, image)), images))
    for alone_result, other in zip(alone, together, strict=True):
        assert other.score == pytest.approx(alone_result.score, abs=1e-6)
        np.testing.assert_allclose(other.error_map, alone_result.error_map, atol=1e-6)


def test_decoding_when_images_are_large_then_one_after_the_other_and_small_ones_beside():
    room = DecodingRoom(pixels=10, images=4)
    inside, most = [], []

    def decode(pixels: int) -> None:
        with room.take(pixels):
            inside.append(pixels)
            most.append(list(inside))
            threading.Event().wait(0.01)
            inside.remove(pixels)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [12, 9, 3, 9, 12, 2, 2, 2, 2, 9, 1, 1, 1, 1, 1]))
    assert all(sum(together) <= 10 or len(together) == 1 for together in most)
    assert max(len(together) for together in most) > 1


def test_result_when_its_time_is_over_then_it_leaves_and_nobody_behind_it_is_held_up():
    gate = Gate()
    batches = Batches(gate, most=1, room=64)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batches.result, 1)
        assert gate.begun.wait(10)
        late = pool.submit(batches.result, 2, 0.05)
        with pytest.raises(Late):
            late.result(10)
        patient = pool.submit(batches.result, 3, 10.0)
        gate.opened.set()
        assert (first.result(10), patient.result(10)) == (2, 6)
    assert gate.batches == [[1], [3]]


def test_result_when_time_runs_out_as_turns_are_handed_on_then_every_item_ends():
    def slow(items: list[int]) -> list[int]:
        time.sleep(0.0005)
        return items

    batches = Batches(slow, most=2, room=1000)

    def ask(item: int) -> bool:
        try:
            return batches.result(item, 0.001) == item
        except Late:
            return False

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(ask, range(2000)))
    assert any(ended)
    assert not all(ended)
    assert batches.result(1) == 1
