"""The sections `model` of project files, one for each task: the network and its training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# How an image is fitted to the model's square input: see `pipelines.images.preprocess`.
Resize = Literal["auto", "fit", "stretch", "crop", "tile", "tile2", "tile3", "tile4"]
AnomalyResize = Literal["auto", "fit", "stretch", "tile", "tile2", "tile3", "tile4"]
INPUT_SIZES = {"small": 128, "base": 256, "large": 512}  # pixels a side


class Section(BaseModel):
    """A section of a project file: immutable, and without keys that nobody declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AnomalySettings(Section):
    """The restoration network of `task: anomaly` and its training.

    Attributes:
        preset: size of the network.
        input_size: side of the square input in pixels. Default: `INPUT_SIZES` of the preset.
        resize: how an image is fitted to the input: see `pipelines.images.preprocess`.
        score: what the threshold is set on: the reconstruction error alone, or fused with a second score.
        export: arithmetic of the served graph; int8 is used only if it loses no accuracy and is faster.
        epochs: number of epochs. Default None: chosen by the training, within the time budget.
        batch_size: images per batch.
        gradient_accumulation_steps: batches per weight update; several simulate a batch too large for the GPU.
        time_budget_minutes: time limit of the training.
        seed: seed of initialisation and sampling.
    """

    preset: Literal["small", "base", "large"] = "small"
    input_size: int = Field(default=INPUT_SIZES["small"], ge=32, le=1024, multiple_of=32)
    resize: AnomalyResize = "auto"
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
        # An unknown preset is refused by the validation of its own field.
        if isinstance(data, dict) and data.get("preset") in tuple(INPUT_SIZES):
            return {"input_size": INPUT_SIZES[data["preset"]], **data}
        return data


class ClassificationSettings(Section):
    """The network of `task: classification` and its training.

    Attributes:
        backbone: pretrained encoder: `efficientnet_lite0`, which is installed, or the name of a network of
            keras.applications such as `vgg16`, downloaded by Keras at first use. VGG16 takes about 0.4 s an image on
            two cores, ten times as long as the default.
        layers: dense layers behind the embedding; 1 is multinomial logistic regression, the others are hidden layers
            with ReLU.
        input_size: side of the square input in pixels.
        resize: how an image is fitted to the input; `crop` scales the shorter side and keeps the centre.
        open_layers: number of convolutions of the backbone, counted from its end, that fine-tuning trains as well,
            which is kept only if validation says that it is better. 0: the head alone.
        epochs: number of epochs of the fine-tuning. Default None: as many as fit into the time budget.
        batch_size: images per batch of the fine-tuning.
        time_budget_minutes: time limit of the training.
        seed: seed of initialisation, folds and augmentation.
    """

    backbone: str = "efficientnet_lite0"
    layers: int = Field(default=1, ge=1, le=4)
    input_size: int = Field(default=224, ge=64, le=1024, multiple_of=32)
    resize: Literal["fit", "stretch", "crop"] = "crop"
    open_layers: int = Field(default=16, ge=0, le=1000)
    epochs: int | None = Field(default=None, ge=1, le=10_000)
    batch_size: int = Field(default=32, ge=2, le=1024)
    time_budget_minutes: float = Field(default=30, gt=0, le=10_080)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @field_validator("backbone")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value.isidentifier():
            raise ValueError("give the name of a backbone, such as efficientnet_lite0 or vgg16")
        return value


ModelSettings = AnomalySettings | ClassificationSettings
MODEL_SECTIONS: dict[str, type[AnomalySettings] | type[ClassificationSettings]] = {
    "anomaly": AnomalySettings,
    "classification": ClassificationSettings,
}
