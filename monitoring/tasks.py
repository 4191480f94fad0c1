"""What reports, mails and forms say of each task: one description a task, and the table that finds it.

Imports nothing heavy: DAG files read it when they are parsed.
"""

from dataclasses import dataclass

from pipelines.errors import SettingsError


@dataclass(frozen=True)
class TaskDescription:
    """The words of one task.

    Attributes:
        reference: what the reference of a version is, after "the 80".
        more_reference: what to do where the reference is too small.
        new_images: what to do where images are to look different from now on.
        answers: what serving gives.
        flagged: title of the share of predictions that the weekly digest follows.
        expects_defects: whether the digest says how many parts the project file expects to be defective.
        difference: title of the difference that the gate decides by, in the training mail; None: not shown.
        recall: title of the table of recall by class in the training mail; None: not shown.
        minimum_accuracy: whether the champion's accuracy is checked against `promotion.minimum_accuracy`.
        epochs: what the form says of epochs.
        scratch: what a training from scratch begins with.
    """

    reference: str
    more_reference: str
    new_images: str
    answers: str
    flagged: str
    expects_defects: bool
    difference: str | None
    recall: str | None
    minimum_accuracy: bool
    epochs: str
    scratch: str


_DESCRIPTIONS = {
    "anomaly": TaskDescription(
        reference="good images that set the threshold",
        more_reference="train with more good images",
        new_images="put good ones of the new kind into the inbox",
        answers="verdicts",
        flagged="Called anomalous",
        expects_defects=True,
        difference=None,
        recall=None,
        minimum_accuracy=False,
        epochs="At most so many passes over the training images.",
        scratch="Random weights",
    ),
    "classification": TaskDescription(
        reference="validation images",
        more_reference="train with more images",
        new_images="put some of them into the inbox, each in the folder of its class",
        answers="answers",
        flagged="Unsure",
        expects_defects=False,
        difference="Accuracy, difference to the champion",
        recall="Recall by class, worst first",
        minimum_accuracy=True,
        epochs="At most so many passes over the training images in the fine-tuning.",
        scratch="The pretrained backbone with a new head",
    ),
}


def describe_task(name: str) -> TaskDescription:
    """Return the description of a task.

    >>> describe_task("classification").flagged
    'Unsure'

    Raises:
        SettingsError: there is no such task.
    """
    if name not in _DESCRIPTIONS:
        raise SettingsError(f"no description of the task {name!r}: add one to monitoring/tasks.py")
    return _DESCRIPTIONS[name]
