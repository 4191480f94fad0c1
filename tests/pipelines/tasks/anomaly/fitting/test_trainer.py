"""Training on a few tiny images: it learns, stops in time, resumes exactly, and is reproducible by seed."""

from dataclasses import replace
from itertools import islice, pairwise

import keras
import numpy as np
import pytest
from keras import ops

from pipelines.errors import TrainingFailed
from pipelines.tasks.anomaly.fitting.batches import BatchStream, Selection, validation_batches
from pipelines.tasks.anomaly.fitting.state import ENOUGH_STEPS, FitSettings, Fitted
from pipelines.tasks.anomaly.fitting.trainer import fit, learning_rate
from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
from pipelines.tasks.anomaly.restoration.network import named_weights
from pipelines.tasks.anomaly.synthetic.real_defects import Annotated
from pipelines.training.state import Progress, TrainingState, clock
from tests.pipelines.tasks.anomaly.pictures_of_parts import defective_parts, good_parts

QUICK = FitSettings(input_size=32, batch_size=8, epochs=2, seconds=300, precision="float32")


@pytest.fixture(scope="module")
def trained() -> tuple[Fitted, list[Progress]]:
    """Train a network on two dozen parts, and collect its progress reports."""
    lines: list[Progress] = []
    settings = replace(QUICK, epochs=20)
    return fit(good_parts(24), settings, validation=good_parts(4, seed=5), on_progress=lines.append), lines


def test_fit_on_a_few_parts_learns_to_tell_defects_and_reports_each_epoch(trained):
    fitted, lines = trained
    lines = [line for line in lines if line.ended]  # a busy machine reports in between, too
    assert [line.epoch for line in lines] == list(range(1, 21))
    assert lines[-1].loss < 0.5 * lines[0].loss
    assert lines[0].validation_loss is not None
    assert lines[-1].validation_loss is not None
    assert (fitted.epochs, fitted.stopped, fitted.precision) == (20, "epochs", "float32")
    assert told_apart(fitted.network, good_parts(20, seed=7), defective_parts(20)) > 0.9


def test_fit_from_a_champion_on_new_parts_with_replay_is_better_on_them_and_not_worse_on_the_old(trained):
    champion = trained[0].network
    old, new = good_parts(24), upright(good_parts(6, seed=3))
    images = Selection(np.concatenate([old, new]), np.arange(30), fresh=np.arange(30) >= 24)
    settings = replace(QUICK, steps=100, learning_rate=0.3 * QUICK.learning_rate)
    tuned = fit(images, settings, weights=named_weights(champion)).network
    new_pair = upright(good_parts(20, seed=7)), upright(defective_parts(20))
    assert told_apart(tuned, *new_pair) > told_apart(champion, *new_pair) + 0.05
    # Of what the champion takes for worse and is not, at most half is left.
    assert 1 - told_apart(tuned, *new_pair) < 0.5 * (1 - told_apart(champion, *new_pair))
    old_pair = good_parts(20, seed=7), defective_parts(20)
    assert told_apart(tuned, *old_pair) > told_apart(champion, *old_pair) - 0.02


def test_fit_on_tiles_counts_the_evidence_of_each_from_what_is_usual_of_it():
    """Images of two halves, of which the right one has unpredictable grain."""
    generator = np.random.default_rng(0)
    left, right = good_parts(20), upright(good_parts(20, seed=1))
    right = np.clip(right + generator.normal(0, 25, right.shape), 0, 255).astype(np.uint8)
    tiles = Selection(np.stack([left, right], axis=1).reshape(-1, 32, 32, 3), np.arange(40), np.tile([7, 8], 20))
    network = fit(tiles, replace(QUICK, epochs=None, steps=30)).network
    assert network.get_layer("usual_maps").get_weights()[0].shape == (2, 2 * 16 * 16)
    answer = network(tiles[np.arange(40)] / np.float32(255))
    error, evidence = (ops.convert_to_numpy(answer[name]) for name in ("error", "evidence"))
    # Evidence is 0 at six standard deviations, in units of two.
    np.testing.assert_allclose(evidence.mean(axis=0), -3, atol=0.05)
    np.testing.assert_allclose(evidence[:, :3].std(axis=0), 0.5, atol=0.025)
    assert evidence.std(axis=0).max() < 0.525
    # log(1 + e^0) for a median error: in both halves, although the errors of the right one are far larger.
    assert np.median(error[::2]) == pytest.approx(np.log(2), abs=0.15)
    assert np.median(error[1::2]) == pytest.approx(np.log(2), abs=0.15)


def test_fit_on_images_that_are_all_the_same_scores_them_in_finite_numbers():
    network = fit(np.tile(good_parts(1), (16, 1, 1, 1)), replace(QUICK, epochs=None, steps=3)).network
    scores = ops.convert_to_numpy(inspection_model(network)(good_parts(4))["score"])
    assert np.isfinite(scores).all()


def upright(parts: np.ndarray) -> np.ndarray:
    """Return parts of another type, with stripes in the other direction."""
    return np.ascontiguousarray(parts.swapaxes(1, 2))


def told_apart(network: keras.Model, good: np.ndarray, bad: np.ndarray) -> float:
    """Return the AUROC of the network's scores."""
    scores = [ops.convert_to_numpy(inspection_model(network)(images)["score"]) for images in (good, bad)]
    return float(np.mean(scores[1][:, None] > scores[0][None]))


def test_fit_with_one_seed_twice_gives_the_same_weights_and_taken_up_halfway_too():
    states: list[TrainingState] = []
    images = good_parts(10)
    whole = fit(images, QUICK, on_checkpoint=states.append, checkpoint_seconds=0)
    again = fit(images, QUICK)
    middle = next(state for state in states if state.step == 27)
    taken_up = fit(images, QUICK, state=middle)
    for first, second, third in zip(*(run.network.get_weights() for run in (whole, again, taken_up)), strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
    assert [state.step for state in states] == [*range(1, 41), 40]
    assert taken_up.seconds > middle.elapsed


def test_fit_when_gradients_are_accumulated_changes_the_weights_every_other_step_and_can_be_taken_up_in_between():
    states: list[TrainingState] = []
    images, settings = good_parts(10), replace(QUICK, epochs=None, steps=5, accumulation=2)
    whole = fit(images, settings, on_checkpoint=states.append, checkpoint_seconds=0)
    kernels = [state.arrays[0] for state in states[:5]]
    assert kernels[0].shape == whole.network.get_layer("fold").kernel.shape
    assert [not np.array_equal(first, second) for first, second in pairwise(kernels)] == [True, False, True, False]
    taken_up = fit(images, settings, state=states[2])
    for first, second in zip(whole.network.get_weights(), taken_up.network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_fit_when_the_time_is_up_stops_and_says_so():
    lines: list[Progress] = []
    fitted = fit(good_parts(8), replace(QUICK, epochs=10_000, seconds=4), on_progress=lines.append)
    assert fitted.stopped == "time"
    assert fitted.seconds >= 4
    assert 1 <= fitted.steps < 10_000
    assert lines[-1].ended
    assert np.isfinite(lines[-1].loss)


def test_fit_when_the_time_was_used_before_trains_no_further():
    states: list[TrainingState] = []
    fit(good_parts(8), replace(QUICK, epochs=1), on_checkpoint=states.append)
    fitted = fit(good_parts(8), QUICK, state=replace(states[-1], elapsed=1000.0))
    assert (fitted.steps, fitted.stopped) == (20, "time")


def test_most_steps_are_those_asked_for_and_else_as_many_as_are_enough():
    for surface in (False, True):
        assert FitSettings(epochs=3).most_steps(20, surface) == 60
        assert FitSettings(epochs=3, steps=7).most_steps(20, surface) == 7
        assert FitSettings("base").most_steps(20, surface) > 100_000  # time ends it
    assert FitSettings("small").most_steps(20, surface=False) == ENOUGH_STEPS["small"]
    assert FitSettings("small").most_steps(20, surface=True) == 3 * ENOUGH_STEPS["small"]


def test_fit_when_nothing_but_the_preset_is_given_stops_after_enough_steps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ENOUGH_STEPS, "small", 3)
    fitted = fit(good_parts(4), replace(QUICK, epochs=None))
    assert (fitted.steps, fitted.stopped) == (3, "steps")
    grain = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    assert fit(grain, replace(QUICK, epochs=None)).steps == 9
    assert fit(good_parts(4), replace(QUICK, steps=2)).stopped == "steps"


def test_fit_when_there_are_no_images_says_what_to_do():
    with pytest.raises(TrainingFailed, match="no good training images; put some into the inbox"):
        fit(good_parts(1)[:0], QUICK)


def test_fit_when_weights_are_of_another_network_says_train_from_scratch():
    with pytest.raises(TrainingFailed, match="train from scratch"):
        fit(good_parts(4), QUICK, weights={"draw": [np.zeros((3, 3))]})


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_from_any_step_are_those_of_an_uninterrupted_stream(workers):
    stream = BatchStream(good_parts(7), 4, seed=3)
    through = list(islice(stream.from_step(0, workers), 6))
    for step in (2, 5):
        (damaged, (clean, _)), (again, (clean_again, _)) = next(stream.from_step(step)), through[step]
        np.testing.assert_array_equal(damaged, again)
        np.testing.assert_array_equal(clean, clean_again)


def test_workers_are_half_of_the_processors_and_fewer_where_batches_are_large(monkeypatch: pytest.MonkeyPatch):
    small = BatchStream(good_parts(2), 4, seed=3)
    large = BatchStream(good_parts(2, 512), 16, seed=3)
    for cores, workers in ((1, 1), (2, 1), (9, 4), (64, 8)):
        monkeypatch.setattr("pipelines.tasks.anomaly.fitting.batches.usable_cores", lambda cores=cores: cores)
        assert small.workers() == workers
        assert large.workers() == min(5, workers)


def test_batches_show_every_image_once_before_any_again():
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.full((1, 32, 32, 3), 20, np.uint8)
    stream = BatchStream(images, 4, seed=1)
    levels = [round(float(np.median(clean)) * 255 / 20) for step in range(3) for clean in stream.batch(step)[1][0]]
    # Brightness varies by 8 %, so that neighbouring levels of the brightest images may be confused.
    assert len(levels) == 12
    assert sorted(levels)[:4] == pytest.approx([0, 1, 2, 3], abs=1)
    assert stream._order(0, 0).tolist() != list(range(12))
    assert sorted(stream._order(0, 0).tolist()) == list(range(12))


def test_batches_when_some_images_are_fresh_are_half_of_them_and_half_replayed():
    images = np.repeat(np.array([40, 200], np.uint8), [30, 3])[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    fresh = np.arange(33) >= 30
    stream = BatchStream(Selection(images, np.arange(33), fresh=fresh), 8, seed=0)
    bright = [(np.median(stream.batch(step)[1][0], axis=(1, 2, 3)) > 0.5).sum() for step in range(9)]
    assert bright == [4] * 9
    # All old images occur as well.
    assert len({tuple(stream._order(1, turn)) for turn in range(3)}) == 3
    everything = BatchStream(Selection(images, np.arange(33), fresh=np.ones(33, bool)), 8, seed=0)
    assert len(everything.batch(0)[0]) == 8


def test_batches_when_anomalies_are_annotated_paste_located_ones_and_flag_the_others():
    images, size = np.full((6, 32, 32, 3), 90, np.uint8), 32
    located, masks = np.full((1, size, size, 3), 90, np.uint8), np.zeros((1, size, size), np.uint8)
    located[0, 10:16, 10:16] = (255, 0, 0)
    masks[0, 10:16, 10:16] = 255
    annotated = Annotated(located, masks, np.full((2, size, size, 3), 250, np.uint8))
    red, unknown = 0, 0
    for step in range(30):
        damaged, (clean, unlocated) = BatchStream(images, 8, 0, annotated).batch(step)
        changed = np.abs(damaged - clean).max(axis=-1) > 0.05
        red += ((damaged[..., 0] - damaged[..., 1] > 0.5) & changed).any(axis=(1, 2)).sum()
        assert not changed[unlocated == 1].any()
        assert (clean[unlocated == 1] > 0.8).all()
        unknown += int(unlocated.sum())
    assert red > 30
    assert 5 < unknown < 25


def test_selection_reads_only_the_rows_asked_for():
    images = good_parts(6)
    chosen = Selection(images, np.array([5, 1, 3]))
    assert len(chosen) == 3
    np.testing.assert_array_equal(chosen[np.array([0, 2])], images[[5, 3]])


def test_validation_batches_are_whole_and_fixed():
    batches = validation_batches(good_parts(5), 4, seed=0)
    again = validation_batches(good_parts(5), 4, seed=0)
    assert [batch[0].shape for batch in batches] == [(4, 32, 32, 3)] * 2
    np.testing.assert_array_equal(batches[1][0], again[1][0])
    assert validation_batches(good_parts(1)[:0], 4, seed=0) == []


def test_learning_rate_warms_up_and_falls_to_a_hundredth():
    assert learning_rate(1.0, 0, 0.0) < 0.05
    assert learning_rate(1.0, 100, 0.0) == 1
    assert learning_rate(1.0, 100, 1.0) == pytest.approx(0.01)
    parts = [learning_rate(1.0, 100, part) for part in np.linspace(0, 1, 20)]
    assert parts == sorted(parts, reverse=True)


def test_progress_reads_as_one_line():
    line = Progress(7, 60, True, 0.0123, None, 1e-3, 49.2, 72.4, 240.0)
    assert str(line) == "epoch 7 of 60 · loss 0.0123 · 49 images/s · 1:12 of 4:00"
    assert clock(3661) == "61:01"
