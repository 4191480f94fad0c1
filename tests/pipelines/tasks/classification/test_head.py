"""The head: what it learns, how its penalty is chosen, and that groups stay together."""

import numpy as np
import pytest

from pipelines.tasks.classification.fitting.data import log_losses
from pipelines.tasks.classification.fitting.head import fit_head, tune_head


def clusters(per_class: int, classes: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings [n, 12] around a centre for each class, and labels [n]."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (classes, 12))
    labels = np.repeat(np.arange(classes), per_class)
    return (centres[labels] + rng.normal(0, spread, (len(labels), 12))).astype(np.float32), labels


def alone(labels: np.ndarray) -> np.ndarray:
    return np.arange(len(labels)).astype(str)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_fit_when_classes_are_apart_then_logits_tell_them(classes: int):
    embeddings, labels = clusters(30, classes, 0.2)
    head = fit_head(embeddings, labels, np.ones(len(labels), np.float32), 1.0, classes)
    logits = head.logits(embeddings)
    assert logits.shape == (len(labels), classes)
    assert (logits.argmax(axis=1) == labels).all()


def test_fit_when_a_class_has_no_image_then_it_is_never_predicted():
    embeddings, labels = clusters(20, 3, 0.2)
    kept = labels != 1
    head = fit_head(embeddings[kept], labels[kept], np.ones(kept.sum(), np.float32), 1.0, 3)
    assert not (head.logits(embeddings).argmax(axis=1) == 1).any()


def test_fit_when_images_weigh_little_then_they_count_little():
    embeddings, labels = clusters(40, 2, 1.5)
    wrong = np.concatenate([labels, 1 - labels])
    weights = np.concatenate([np.ones(len(labels)), np.full(len(labels), 0.01)]).astype(np.float32)
    head = fit_head(np.concatenate([embeddings, embeddings]), wrong, weights, 1.0, 2)
    assert (head.logits(embeddings).argmax(axis=1) == labels).mean() > 0.9


def test_tune_when_embeddings_are_noisy_then_a_stronger_penalty_is_chosen():
    clean, labels = clusters(40, 4, 0.3)
    noisy, _ = clusters(40, 4, 4.0)
    ones = np.ones(len(labels), np.float32)
    chosen = [tune_head(each, labels, alone(labels), ones, strengths=(0.001, 0.1, 10.0)) for each in (clean, noisy)]
    assert chosen[0].strength > chosen[1].strength
    for each in chosen:
        assert each.log_loss[each.strength] == min(each.log_loss.values())
        assert np.mean(log_losses(each.out_of_fold, labels)) == pytest.approx(each.log_loss[each.strength])


def test_tune_when_copies_of_a_photograph_form_a_group_then_out_of_fold_logits_do_not_know_it():
    rng = np.random.default_rng(1)
    labels = np.repeat(rng.permutation(np.arange(60) % 3), 2)  # two copies of each photograph of pure noise
    embeddings = np.repeat(rng.normal(0, 1, (60, 200)), 2, axis=0).astype(np.float32)
    ones = np.ones(len(labels), np.float32)
    grouped = tune_head(embeddings, labels, np.repeat(np.arange(60), 2).astype(str), ones)
    leaking = tune_head(embeddings, labels, alone(labels), ones)
    assert (grouped.out_of_fold.argmax(axis=1) == labels).mean() < 0.55
    assert (leaking.out_of_fold.argmax(axis=1) == labels).mean() > 0.8


def test_tune_when_run_again_with_the_seed_then_gives_the_same():
    embeddings, labels = clusters(15, 3, 1.0)
    ones = np.ones(len(labels), np.float32)
    first, second = (tune_head(embeddings, labels, alone(labels), ones, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.head.weights, second.head.weights)
    np.testing.assert_array_equal(first.out_of_fold, second.out_of_fold)
