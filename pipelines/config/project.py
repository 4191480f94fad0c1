"""Read and validate project files: one inspection line each, `<folder>/<project>.yaml` or `.yml`.

An error message names the file, the key, the value and what is allowed. It affects that project alone: `load_projects`
returns the error in the project's place.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipelines.config.model_settings import MODEL_SECTIONS, AnomalySettings, ModelSettings, Section
from pipelines.config.project_files import find_files
from pipelines.config.s3_addresses import BUCKET, split_prefix
from pipelines.config.settings import settings
from pipelines.errors import SettingsError

PROJECT_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_EMAIL = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")

Share = Annotated[float, Field(gt=0, lt=1)]


class ImageRules(Section):
    """Which images are accepted.

    Attributes:
        min_side: least width and height in pixels.
        max_pixels: greatest width x height in pixels.
        bits: bit depth of samples in files that do not declare it; `auto` takes what the samples of the first dataset
            version with such files show.
    """

    min_side: int = Field(default=32, ge=1, le=4096)
    max_pixels: int = Field(default=50_000_000, ge=1_000)
    bits: Literal[8, 10, 12, 14, 16, "auto"] = "auto"


class ThresholdPolicy(Section):
    """How the served threshold is chosen.

    Attributes:
        policy: criterion of the threshold.
        false_positive_rate: stated false-positive rate.
        cost_false_alarm: cost of a false positive, in any currency.
        cost_miss: cost of a false negative, in the same currency.
        defect_rate: expected share of defective parts on the line.
        review_false_positive_rate: sets a second, lower threshold, above which serving asks for review by a person, as
            the share of good images above it. Default None: no review. Read by serving alone.
    """

    policy: Literal["least_cost", "conformal", "f1"] = "least_cost"
    false_positive_rate: float = Field(default=0.01, ge=0.0001, le=0.5)
    cost_false_alarm: float = Field(default=1, gt=0)
    cost_miss: float = Field(default=20, gt=0)
    defect_rate: Share = 0.01
    review_false_positive_rate: float | None = Field(default=None, ge=0.0001, le=0.9)

    @model_validator(mode="after")
    def _review_is_wider(self) -> "ThresholdPolicy":
        review = self.review_false_positive_rate
        if review is not None and review <= self.false_positive_rate:
            raise ValueError(
                f"review_false_positive_rate is {review:g}; make it more than false_positive_rate, "
                f"{self.false_positive_rate:g}"
            )
        return self


class PromotionRules(Section):
    """Conditions for promoting a challenger.

    Attributes:
        minimum_auroc: least AUROC of an anomaly detector.
        minimum_accuracy: least accuracy of a classifier.
        margin: greatest tolerated deficit in that metric against the champion.
        bootstrap_samples: number of bootstrap resamples.
    """

    minimum_auroc: float = Field(default=0.8, ge=0, le=1)
    minimum_accuracy: float = Field(default=0.7, ge=0, le=1)
    margin: float = Field(default=0.02, ge=0, le=1)
    bootstrap_samples: int = Field(default=2000, ge=200, le=100_000)


class SubsetTargets(Section):
    """Target shares of the subsets among the good images; they add up to 1."""

    training: Share = 0.6
    validation: Share = 0.2
    test: Share = 0.2

    @model_validator(mode="after")
    def _add_up(self) -> "SubsetTargets":
        total = self.training + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"training + validation + test is {total:g}; make it 1")
        return self


# By task, where they differ from those of `SubsetTargets`.
_SUBSET_TARGETS = {"classification": {"training": 0.68, "validation": 0.12, "test": 0.2}}


class DatasetRules(Section):
    """What a dataset version takes.

    Attributes:
        newest: number of training and validation images of a classifier, the newest of each class; the test subset is
            not affected. Default None: all.
    """

    newest: int | None = Field(default=None, ge=10, le=10_000_000)


class GroupRule(Section):
    """How samples of one part, batch or camera are grouped; exactly one of the two is given.

    Attributes:
        regex: pattern on the inbox path whose first group, or group named `group`, is the sample's group.
        column: column of index.csv.
    """

    regex: str | None = None
    column: str | None = None

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        if pattern.groups < 1:
            raise ValueError("needs one (…) group: the part that names the sample's group")
        return value

    @model_validator(mode="after")
    def _exactly_one_source(self) -> "GroupRule":
        if (self.regex is None) == (self.column is None):
            raise ValueError("give either regex or column")
        return self


class AnnotationRules(Section):
    """What predictions say of their images.

    Attributes:
        propose_above: certainty above which a prediction of a classifier becomes a proposed annotation of its image.
            Default None: none does.
    """

    propose_above: float | None = Field(default=None, ge=0, lt=1)


class RetrainRules(Section):
    """When to retrain.

    Attributes:
        new_images: number of new labelled images that triggers a training.
        cron: schedule of regular trainings, five fields.
    """

    new_images: int = Field(default=500, ge=1)
    cron: str = "0 2 * * *"

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        fields = value.split()
        if len(fields) != 5 or not all(re.fullmatch(r"[0-9A-Za-z*/,\-#L?]+", field) for field in fields):
            raise ValueError("give five cron fields, such as '0 2 * * *' for two at night")
        return value


class DriftRules(Section):
    """Which served images drift compares with the reference.

    Attributes:
        window_days: length of the current window in days.
        minimum_images: least number of images in the window for a comparison.
    """

    window_days: int = Field(default=7, ge=1, le=365)
    minimum_images: int = Field(default=50, ge=20)


class Project(Section):
    """One inspection line as declared by its project file.

    Attributes:
        name: project name, taken from the file's name.
        task: kind of task; it says which keys `model` has.
        title: name for people.
        bucket: S3 bucket.
        read_from: `s3://bucket/prefix/` addresses, besides `<bucket>/<project>/`, from which serving reads images.
        timezone: IANA time zone of schedules and of times without a zone.
        image: accepted images.
        model: network and training.
        threshold: choice of the served threshold.
        promotion: conditions for promotion.
        subsets: target shares of the subsets. Default: 0.6, 0.2, 0.2; of classifiers 0.68, 0.12, 0.2.
        dataset: what a dataset version takes.
        group: grouping of samples. Default None: index.csv's `group`, else each sample by itself; samples of
            classifiers by their perceptual hash.
        annotation: what predictions say of their images.
        retrain: when to retrain.
        drift: what drift compares.
        serve: which version serving loads: the champion, or the latest.
        keep_served_days: days for which served images are kept in S3.
        recipients: e-mail addresses for reports.
    """

    name: str
    task: Literal["anomaly", "classification"] = "anomaly"
    title: str = ""
    bucket: str = "inspectline"
    read_from: list[str] = Field(default=[])
    timezone: str = "UTC"
    image: ImageRules = ImageRules()
    model: ModelSettings = Field(default_factory=AnomalySettings, validate_default=True)
    threshold: ThresholdPolicy = ThresholdPolicy()
    promotion: PromotionRules = PromotionRules()
    subsets: SubsetTargets = SubsetTargets()
    dataset: DatasetRules = DatasetRules()
    group: GroupRule | None = None
    annotation: AnnotationRules = AnnotationRules()
    retrain: RetrainRules = RetrainRules()
    drift: DriftRules = DriftRules()
    serve: Literal["champion", "latest"] = "champion"
    keep_served_days: int = Field(default=30, ge=1, le=3650)
    recipients: list[str] = Field(default=[])

    @model_validator(mode="before")
    @classmethod
    def _subsets_of_task(cls, data: Any) -> Any:
        # An unknown task or another type of `subsets` is refused by the validation of its own field.
        if not isinstance(data, dict) or not isinstance(data.get("task"), str):
            return data
        targets, given = _SUBSET_TARGETS.get(data["task"]), data.get("subsets", {})
        return data | {"subsets": targets | given} if targets and isinstance(given, dict) else data

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not PROJECT_NAME.fullmatch(value):
            raise ValueError("name the file with lower-case letters, digits and _, beginning with a letter")
        return value

    @field_validator("model", mode="before")
    @classmethod
    def _model_of_task(cls, value: Any, info: ValidationInfo) -> Any:
        section = MODEL_SECTIONS[info.data.get("task", "anomaly")]
        if isinstance(value, AnomalySettings) and value == AnomalySettings():  # the default
            return section()
        return value if isinstance(value, section) else section.model_validate(value)

    @field_validator("dataset")
    @classmethod
    def _dataset_of_task(cls, value: DatasetRules, info: ValidationInfo) -> DatasetRules:
        if value.newest is not None and info.data.get("task") != "classification":
            raise ValueError("newest is for task: classification alone; leave it out")
        return value

    @field_validator("annotation")
    @classmethod
    def _annotation_of_task(cls, value: AnnotationRules, info: ValidationInfo) -> AnnotationRules:
        if value.propose_above is not None and info.data.get("task") != "classification":
            raise ValueError("propose_above is for task: classification alone; leave it out")
        return value

    @field_validator("bucket")
    @classmethod
    def _bucket(cls, value: str) -> str:
        if not BUCKET.fullmatch(value):
            raise ValueError("an S3 bucket has 3 to 63 lower-case letters, digits, dots and hyphens")
        return value

    @field_validator("read_from")
    @classmethod
    def _read_from(cls, value: list[str]) -> list[str]:
        for address in value:
            split_prefix(address)
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("give an IANA time zone, such as Europe/Berlin") from None
        return value

    @field_validator("recipients")
    @classmethod
    def _recipients(cls, value: list[str]) -> list[str]:
        for address in value:
            if not _EMAIL.fullmatch(address):
                raise ValueError(f"{address!r} is not an e-mail address, such as line3@example.com")
        return value

    def may_read(self, bucket: str, key: str) -> bool:
        """Return whether serving may read the object for a request of this project: its own, or below `read_from`."""
        prefixes = [(self.bucket, f"{self.name}/"), *map(split_prefix, self.read_from)]
        return any(bucket == named and key.startswith(prefix) for named, prefix in prefixes)


def _explain(error: ValidationError) -> str:
    """Summarise pydantic's errors in one line: key, value, allowed values."""
    problems = []
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"]) or "the file"
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            problems.append(f"{key}: no such key")
        else:
            value = "" if isinstance(detail["input"], dict) else f" is {detail['input']!r}"
            problems.append(f"{key}{value}: {message[:1].lower() + message[1:]}")
    return "; ".join(problems)


def read_project(path: Path) -> Project:
    """Read and validate one project file; the project takes the file's name.

    Raises:
        SettingsError: the file is unreadable or invalid; one line names file, key, value and what is allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise SettingsError(f"{path}{where}: not valid YAML ({problem})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error})") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: holds a {type(content).__name__}; write 'key: value' lines")
    if "name" in content:
        raise SettingsError(f"{path}: name: no such key; the project is named as its file, {path.stem!r}")
    try:
        return Project(name=path.stem, **content)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error)}") from None
    except TypeError:
        raise SettingsError(f"{path}: every key must be a word") from None


def project_files() -> dict[str, Path]:
    """Return the project files by project name; earlier folders of INSPECTLINE_PROJECTS take precedence."""
    return find_files(settings().projects)[0]


def load_projects() -> dict[str, Project | SettingsError]:
    """Return every project by name, or the error in its file in its place.

    The error of a file that has a wrong ending is listed by the file's name.
    """
    files, errors = find_files(settings().projects)
    loaded: dict[str, Project | SettingsError] = {**errors}
    for name, path in files.items():
        if name in errors:
            continue
        try:
            loaded[name] = read_project(path)
        except SettingsError as error:
            loaded[name] = error
    return loaded


def load_project(name: str) -> Project:
    """Return one project.

    Raises:
        SettingsError: there is no such project, or its file is invalid.
    """
    files, errors = find_files(settings().projects)
    if name in errors:
        raise errors[name]
    if name not in files:
        declared = ", ".join(sorted(files)) or "none"
        raise SettingsError(f"no project {name!r}: the project files declare {declared}")
    return read_project(files[name])
