"""Views of images keep what they show."""

import numpy as np

from pipelines.tasks.classification.fitting.augmentation import LIGHT, Views, draw_views


def shown(images: np.ndarray, views: Views) -> np.ndarray:
    from pipelines.tasks.classification.fitting.augmentation import show

    return np.asarray(show(images.astype(np.float32), views.transform, views.contrast, views.brightness))


def plain(count: int) -> Views:
    transform = np.tile(np.array([1, 0, 0, 0, 1, 0, 0, 0], np.float32), (count, 1))
    return Views(transform, np.ones((count, 1, 1, 1), np.float32), np.zeros((count, 1, 1, 3), np.float32))


def test_show_when_nothing_is_changed_then_gives_the_image():
    images = np.random.default_rng(0).integers(0, 255, (3, 24, 24, 3))
    np.testing.assert_allclose(shown(images, plain(3)), images, atol=1e-3)


def test_show_when_views_are_drawn_then_the_middle_stays_in_sight_and_values_in_range():
    images = np.zeros((64, 48, 48, 3), np.uint8)
    images[:, 20:28, 20:28] = 255
    views = shown(images, draw_views(64, 48, np.random.default_rng(1)))
    assert views.shape == images.shape
    assert (views >= 0).all()
    assert (views <= 255).all()
    assert (views.max(axis=(1, 2, 3)) > 255 * (0.5 - LIGHT)).all(), "the square is in every view"
    assert len({view.tobytes() for view in views}) == 64


def test_show_when_mirrored_then_left_is_right():
    images = np.zeros((200, 32, 32, 3), np.uint8)
    images[:, :, :16] = 255
    views = shown(images, draw_views(200, 32, np.random.default_rng(2)))
    left_is_bright = views[:, :, :8].mean(axis=(1, 2, 3)) > views[:, :, -8:].mean(axis=(1, 2, 3))
    assert 60 < left_is_bright.sum() < 140
