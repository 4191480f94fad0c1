"""Project files: one inspection line each, `<folder>/<project>.yaml`, checked before anything runs.

A mistake names the file, the key, the value and what is allowed, and concerns that project alone:
`load_projects` returns the error in the project's place.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipelines.config.settings import settings
from pipelines.errors import SettingsError

PROJECT_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_EMAIL = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")

Share = Annotated[float, Field(gt=0, lt=1)]
INPUT_SIZES = {"small": 128, "base": 256, "large": 512}  # pixels a side
# How an image gets into the model's square: see `pipelines.images.preprocess`.
Resize = Literal["auto", "fit", "stretch", "tile", "tile2", "tile3", "tile4"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageRules(_Section):
    """Which images are accepted: sides in pixels, `max_pixels` = width x height."""

    min_side: int = Field(default=32, ge=1, le=4096)
    max_pixels: int = Field(default=50_000_000, ge=1_000)


class ModelSettings(_Section):
    """The network and its training; `input_size` is the side of its square input in pixels (`INPUT_SIZES` of the preset
    unless told), `score` what the threshold is set on: the reconstruction error alone, or fused with the second opinion
    on it. `export` is the arithmetic of the graph that serves; int8 is taken only where it loses nothing and is faster.
    Weights change once after `gradient_accumulation_steps` batches: what does not fit the GPU as one batch is learnt
    from as several.
    """

    preset: Literal["small", "base", "large"] = "small"
    input_size: int = Field(default=INPUT_SIZES["small"], ge=32, le=1024, multiple_of=32)
    resize: Resize = "auto"
    score: Literal["fused", "reconstruction"] = "fused"
    export: Literal["float32", "int8"] = "float32"
    epochs: int | None = Field(default=None, ge=1, le=10_000)
    batch_size: int = Field(default=16, ge=1, le=1024)
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=256)
    time_budget_minutes: float = Field(default=10, gt=0, le=10_080)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _size_of_preset(cls, data: Any) -> Any:
        # A preset that there is not is refused by its own field.
        if isinstance(data, dict) and data.get("preset") in tuple(INPUT_SIZES):
            return {"input_size": INPUT_SIZES[data["preset"]], **data}
        return data


class ThresholdPolicy(_Section):
    """How the served threshold is chosen; costs in any one currency, `defect_rate` the expected share of defects.

    `review_false_positive_rate` sets a second, lower threshold, above which serving asks for a look by people: the
    share of good images that people are then asked about, or called anomalous. Serving alone reads it.
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


class PromotionRules(_Section):
    """What a challenger must reach: a minimum AUROC, and not worse than the champion by more than `margin` AUROC."""

    minimum_auroc: float = Field(default=0.8, ge=0, le=1)
    margin: float = Field(default=0.02, ge=0, le=1)
    bootstrap_samples: int = Field(default=2000, ge=200, le=100_000)


class SubsetTargets(_Section):
    """The shares of the good groups that subsets aim at; they add up to 1."""

    training: Share = 0.6
    validation: Share = 0.2
    test: Share = 0.2

    @model_validator(mode="after")
    def _add_up(self) -> "SubsetTargets":
        total = self.training + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"training + validation + test is {total:g}; make it 1")
        return self


class GroupRule(_Section):
    """How samples of one part, batch or camera are told: a pattern on the inbox key, or an index.csv column."""

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
    def _one(self) -> "GroupRule":
        if (self.regex is None) == (self.column is None):
            raise ValueError("give either regex or column")
        return self


class RetrainRules(_Section):
    """When to train again: at `new_images` labelled images not seen by a training, and nightly at `cron`."""

    new_images: int = Field(default=500, ge=1)
    cron: str = "0 2 * * *"

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        fields = value.split()
        if len(fields) != 5 or not all(re.fullmatch(r"[0-9A-Za-z*/,\-#L?]+", field) for field in fields):
            raise ValueError("give five cron fields, such as '0 2 * * *' for two at night")
        return value


class DriftRules(_Section):
    """What drift compares: served images of the last `window_days`, if there are `minimum_images` of them."""

    window_days: int = Field(default=7, ge=1, le=365)
    minimum_images: int = Field(default=50, ge=20)


class Project(_Section):
    """One inspection line, as its file declares it."""

    name: str
    task: Literal["anomaly"] = "anomaly"
    title: str = ""
    bucket: str = "inspectline"
    timezone: str = "UTC"
    image: ImageRules = ImageRules()
    model: ModelSettings = ModelSettings()
    threshold: ThresholdPolicy = ThresholdPolicy()
    promotion: PromotionRules = PromotionRules()
    subsets: SubsetTargets = SubsetTargets()
    group: GroupRule | None = None
    retrain: RetrainRules = RetrainRules()
    drift: DriftRules = DriftRules()
    serve: Literal["champion", "latest"] = "champion"
    keep_served_days: int = Field(default=30, ge=1, le=3650)
    recipients: list[str] = []

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not PROJECT_NAME.fullmatch(value):
            raise ValueError("name the file with lower-case letters, digits and _, beginning with a letter")
        return value

    @field_validator("bucket")
    @classmethod
    def _bucket(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value):
            raise ValueError("an S3 bucket has 3 to 63 lower-case letters, digits, dots and hyphens")
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


def _explain(error: ValidationError) -> str:
    """Put pydantic's findings in one line: key, value, what is allowed."""
    found = []
    for one in error.errors():
        key = ".".join(str(part) for part in one["loc"]) or "the file"
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            found.append(f"{key}: no such key")
        else:
            value = "" if isinstance(one["input"], dict) else f" is {one['input']!r}"
            found.append(f"{key}{value}: {message[:1].lower() + message[1:]}")
    return "; ".join(found)


def read_project(path: Path) -> Project:
    """Read and check one project file; the project is named as the file.

    Raises:
        SettingsError: in one line, the file, the key, the value and what is allowed.
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
    """Return the project files by project name; an earlier folder of INSPECTLINE_PROJECTS wins."""
    files: dict[str, Path] = {}
    for folder in settings().projects:
        for path in sorted(folder.glob("*.yaml")):
            files.setdefault(path.stem, path)
    return files


def load_projects() -> dict[str, Project | SettingsError]:
    """Return every project by name, or in its place the error that its file holds."""
    loaded: dict[str, Project | SettingsError] = {}
    for name, path in project_files().items():
        try:
            loaded[name] = read_project(path)
        except SettingsError as error:
            loaded[name] = error
    return loaded


def load_project(name: str) -> Project:
    """Return one project.

    Raises:
        SettingsError: there is no such project, or its file is wrong.
    """
    files = project_files()
    if name not in files:
        known = ", ".join(sorted(files)) or "none"
        raise SettingsError(f"no project {name!r}: the project files declare {known}")
    return read_project(files[name])
