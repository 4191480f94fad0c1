"""Fine-tuning: what is trained, that it is reproducible, and that an interrupted one goes on."""

import numpy as np
import pytest

from pipelines.errors import TrainingFailed
from pipelines.tasks.classification.fitting.data import LabelledImages
from pipelines.training.state import Progress, TrainingState

SIZE, CLASSES = 32, 2


def drawn_images(count: int, seed: int = 0) -> LabelledImages:
    """Return squares that are bright above or below, uint8 [n, 32, 32, 3]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = rng.integers(60, 120, (count, SIZE, SIZE, 3)).astype(np.uint8)
    images[labels == 0, :16] += 100
    images[labels == 1, 16:] += 100
    ones = np.ones(count, np.float32)
    return LabelledImages(images, np.arange(count), labels, np.arange(count).astype(str), ones)


def small_network():
    """Return a network of two convolutions with a head, by name as `classifier` makes it."""
    import keras

    keras.utils.set_random_seed(3)
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 3, strides=4, name="first", activation="relu")(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, name="second", activation="relu")(x)
    embedding = keras.layers.Flatten(name="embedding")(x)
    return keras.Model(
        images, {"logits": keras.layers.Dense(CLASSES, name="logits")(embedding), "embedding": embedding}
    )


def differ(first: np.ndarray, second: np.ndarray) -> bool:
    return bool((first != second).any())


def trained(epochs: int = 3, **given):
    from pipelines.tasks.classification.fitting.fine_tune import FineTuning, fine_tune
    from pipelines.tasks.classification.fitting.network import open_upper_layers

    network = small_network()
    open_upper_layers(network, given.pop("open_layers", 1))
    data = given.pop("data", drawn_images(20))
    settings = FineTuning(epochs, given.pop("seconds", 600.0), batch_size=8, learning_rate=given.pop("rate", 3e-3))
    return network, fine_tune(network, data, CLASSES, settings, **given)


@pytest.mark.parametrize(("open_layers", "changed"), [(0, set()), (1, {"second"}), (2, {"first", "second"})])
def test_fine_tune_when_layers_are_open_then_changes_those_alone(open_layers: int, changed: set[str]):
    network, _ = trained(open_layers=open_layers)
    before = small_network()
    moved = {
        layer.name
        for layer in network.layers
        if layer.weights and any(map(differ, layer.get_weights(), before.get_layer(layer.name).get_weights()))
    } - {"logits"}
    assert moved == changed, "batch normalisation and closed layers stay as they were"


def test_fine_tune_when_run_again_with_the_seed_then_gives_the_same_weights():
    first, second = trained()[0].get_weights(), trained()[0].get_weights()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_fine_tune_when_interrupted_then_goes_on_to_the_same_weights():
    states: list[TrainingState] = []
    network, tuned = trained(on_checkpoint=states.append, checkpoint_seconds=0.0)
    assert len(states) == tuned.steps == 9
    again, resumed = trained(state=states[4])
    assert resumed.steps == 9
    for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_fine_tune_when_trained_then_tells_the_classes_and_reports_each_epoch():
    seen: list[Progress] = []
    network, tuned = trained(epochs=12, data=drawn_images(60), on_progress=seen.append, open_layers=2)
    fresh = drawn_images(40, seed=9)
    logits = np.asarray(network.predict_on_batch(fresh.images.astype(np.float32))["logits"])
    assert (logits.argmax(axis=1) == fresh.labels).mean() > 0.9
    assert [progress.epoch for progress in seen if progress.ended] == list(range(1, 13))
    assert (tuned.epochs, tuned.stopped) == (12, "epochs")


def test_fine_tune_when_the_time_is_up_then_stops():
    _, tuned = trained(epochs=1000, seconds=3.0)
    assert tuned.stopped == "time"
    assert tuned.epochs < 1000


def test_fine_tune_when_the_loss_is_not_finite_then_fails_in_one_sentence():
    data = drawn_images(8)
    data.weights[:] = np.nan
    with pytest.raises(TrainingFailed):
        trained(data=data)
