"""Packages of each task, opened as serving opens them."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import BadPackage
from pipelines.registry.client import RegisteredVersion
from pipelines.registry.package import CARD, REFERENCE
from pipelines.tasks.classification.package import ClassificationPackage, write_card
from pipelines.tasks.classification.predict import conformal_set, predict
from serving.models.served_models import load
from serving.tasks.classification import MOST_CLASSES, ServedClassifier
from tests.pipelines.packages import COLOURS, coloured_image, make_classifier

VERSION = RegisteredVersion("mushrooms", "1")


def rewritten(folder: Path, **changes: object) -> Path:
    """Write the card anew after a file has changed."""
    card = ClassificationPackage.card_type.model_validate_json((folder / CARD).read_bytes())
    write_card(folder, **card.model_dump(exclude={"files", "onnx_sha256", "task"}) | changes)
    return folder


def with_logits(folder: Path, change) -> Path:
    """Change the logits that the package keeps of its validation set."""
    with np.load(folder / REFERENCE) as kept:
        arrays = dict(kept)
    arrays["logits"] = change(arrays["logits"])
    np.savez_compressed(folder / REFERENCE, **arrays)
    return rewritten(folder)


@pytest.mark.parametrize(
    "change", [lambda logits: logits[:, ::-1], lambda logits: logits[:, :2], lambda logits: logits * np.nan]
)
def test_load_when_a_classifier_does_not_reproduce_its_examples_then_refused(tmp_path: Path, change):
    folder = with_logits(make_classifier(tmp_path / "package"), change)
    with pytest.raises(BadPackage, match="export the model again"):
        load(VERSION, folder, 1)


def test_load_when_the_task_is_unknown_then_refused_by_name(tmp_path: Path):
    folder = make_classifier(tmp_path / "package")
    card = json.loads((folder / CARD).read_text("utf-8"))
    (folder / CARD).write_text(json.dumps(card | {"task": "poetry"}), "utf-8")
    with pytest.raises(BadPackage, match="poetry"):
        load(VERSION, folder, 1)


def test_judge_when_recalled_from_what_is_stored_then_the_same_answer_as_that_of_the_task(tmp_path: Path):
    names = tuple(f"class {number:02}" for number in range(30))
    serving = load(VERSION, make_classifier(tmp_path / "package", classes=names), 1)
    model = serving.model
    assert isinstance(model, ServedClassifier)
    package = ClassificationPackage.open(tmp_path / "package")
    generator = np.random.default_rng(1)
    for colour in (*COLOURS, "red+blue", "red+green+blue"):
        image = coloured_image(colour, generator)
        (expected,) = predict(package, [image])
        result = model.result(serving.predict(model.prepare(image)))
        judged = model.judge(result)
        assert judged.answer["class"] == names[expected.best]
        assert judged.answer["conformal_set"] == [
            names[place] for place in conformal_set(package, expected.probabilities)
        ]
        assert judged.answer["unsure"] == (len(judged.answer["conformal_set"]) > 1)
        assert len(judged.answer["classes"]) == MOST_CLASSES
        stored = json.loads(json.dumps(judged.columns["answer"]))
        recalled = model.recalled(stored)
        assert recalled is not None
        np.testing.assert_array_equal(recalled, result)
        assert model.judge(recalled) == judged
    assert model.recalled(None) is None
    assert model.recalled(stored | {"probabilities": {"another": 1.0}}) is None
