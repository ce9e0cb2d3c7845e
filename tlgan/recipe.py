"""What is trained: the frozen, validated sections of a spec that decide the numbers, and their digest.

A `Recipe` says nothing about where it runs (see `cluster.job`). Two equal digests on equal inputs give equal weights.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from tlgan import methods, registry, shapes
from tlgan.canonical import digest_of
from tlgan.data_spec import DataSpec, whole_only
from tlgan.section import (
    MAX_SEED,
    Channels,
    Name,
    NonNegativeFloat,
    PositiveFloat,
    Resolution,
    Section,
    table_check,
)

__all__ = [
    "AugmentSpec",
    "Channels",
    "ClassifierModelSpec",
    "ClassifierRecipe",
    "ClassifierTrainSpec",
    "DataSpec",
    "EXTRACTOR",
    "Effect",
    "EvaluationSpec",
    "LossSpec",
    "MAX_SEED",
    "ModelSpec",
    "Name",
    "NonNegativeFloat",
    "PERCEPTUAL",
    "PositiveFloat",
    "Recipe",
    "Resolution",
    "Section",
    "TrainSpec",
    "TransferSpec",
    "check_metrics",
    "unmeasurable",
    "whole_only",
]


class ModelSpec(Section):
    """The pair of networks. Widths are channels of the block nearest the image."""

    arch: str = Field("dcgan", description="network family")
    resolution: Resolution = Field(32, description="side of the images in pixels, or [height, width]")
    channels: Channels | None = Field(None, description="image channels; default: as the data")
    width: int = Field(48, ge=4, le=1024, description="channels at the image side; doubled a level, up to 8 times")
    latent_dim: int = Field(128, ge=2, le=4096)
    spectral_norm: bool | None = Field(
        None, description="spectral normalisation in the discriminator; default: on where the family has it"
    )
    style_dim: int | None = Field(None, ge=2, le=4096, description="stylegan2: length of a style; default: latent_dim")
    max_width: int | None = Field(
        None, ge=4, le=4096, description="most channels of a level; stylegan2: default 512, r3gan: 768"
    )
    mapping_layers: int | None = Field(None, ge=1, le=16, description="stylegan2: layers before the styles; default: 8")
    depth: int | None = Field(None, ge=1, le=16, description="r3gan: residual blocks a level; default: 2")
    conditional: bool = Field(
        False, description="the networks learn the labels of the data, and draw what class is asked for"
    )

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        return table_check(registry.ARCHS, arch)

    @field_validator("spectral_norm", "style_dim", "max_width", "mapping_layers", "depth")
    @classmethod
    def _option(cls, value: Any, info: ValidationInfo) -> Any:
        arch = info.data.get("arch")
        if value is not None and arch and info.field_name not in registry.ARCHS.facts(arch)["options"]:
            raise ValueError(f"{arch} has no {info.field_name}; leave it out")
        return value

    @field_validator("resolution")
    @classmethod
    def _buildable(cls, resolution: shapes.Resolution, info: ValidationInfo) -> shapes.Resolution:
        arch = info.data.get("arch")
        reason = shapes.misfit(resolution, registry.ARCHS.facts(arch)["resolutions"]) if arch else None
        if reason:
            raise ValueError(f"{arch} {reason}")
        return resolution


class LossSpec(Section):
    """The adversarial objective and its penalties. A penalty of weight 0 is off."""

    name: str = Field("nonsaturating")
    r1: NonNegativeFloat = Field(0.0, description="gamma of R1: gamma/2 * E|grad D(real)|^2")
    r1_interval: int = Field(16, ge=1, description="R1 is applied every so many D steps, times that number")
    r2: NonNegativeFloat = Field(0.0, description="gamma of R2: gamma/2 * E|grad D(generated)|^2")
    r2_interval: int = Field(16, ge=1, description="the same for R2")
    gp: NonNegativeFloat = Field(0.0, description="lambda of the WGAN gradient penalty")
    gp_interval: int = Field(1, ge=1, description="the same for the WGAN gradient penalty")
    path_length: NonNegativeFloat = Field(
        0.0, description="weight of path length regularisation (stylegan2); theirs is 2"
    )
    path_length_interval: int = Field(4, ge=1, description="the same for path lengths, in G steps")
    lecam: NonNegativeFloat = Field(0.0, description="weight of LeCam regularisation: D's logits near their averages")
    lecam_decay: float = Field(0.99, ge=0, lt=1, description="share of those averages that a D step keeps")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return table_check(registry.LOSSES, name)


class TransferSpec(Section):
    """How the parent's networks are adapted. Freeze depths count blocks: D's from the image side, G's from latents."""

    method: str = Field("finetune")
    freeze_d: int = Field(0, ge=0, le=8, description="blocks of D kept frozen, from the image side")
    freeze_g: int = Field(0, ge=0, le=8, description="blocks of G kept frozen, from the latent side")
    thaw_kimg: PositiveFloat | None = Field(
        None, description="freeze: every so many kimg the frozen block next to those that train thaws; default: never"
    )
    weight: NonNegativeFloat | None = Field(None, description="weight of the method's anchor; default: the method's")
    fisher_samples: int | None = Field(
        None, ge=1, le=100_000, description="ewc, kernel_modulation: images for the Fisher information; default: 64"
    )
    anchors: int | None = Field(
        None, ge=1, le=10_000, description="cdc: latents whose images D sees whole; default: 10"
    )
    miner_layers: int | None = Field(None, ge=1, le=16, description="minegan: layers of the miner; default: 2")
    miner_kimg: PositiveFloat | None = Field(
        None, description="minegan: of G, the miner alone trains for so long; default: 4"
    )
    probe_kimg: PositiveFloat | None = Field(
        None, description="kernel_modulation: length of the probing that finds important kernels; default: 2"
    )
    modulated: float | None = Field(
        None, gt=0, le=1, description="kernel_modulation: share of kernels that are kept and modulated; default: 0.25"
    )
    rank: int | None = Field(None, ge=1, le=1024, description="kernel_modulation: rank of the modulation; default: 1")

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        return table_check(registry.TRANSFERS, method)

    def option(self, name: str) -> Any:
        """The value written, or the method's default."""
        given = getattr(self, name)
        return methods.options(self.method)[name] if given is None else given

    def without_idle(self) -> TransferSpec:
        """Without the options that the method does not have, as trials of a search over methods may have them."""
        return self.model_copy(update=dict.fromkeys(methods.idle(self.method, self.model_dump())))


Effect = Literal["color", "translation", "cutout", "blit", "geometry", "xflip", "yflip"]


class AugmentSpec(Section):
    """What D is shown in place of the images. The fields after `policy` are for those whose probability p adapts."""

    name: str = Field("none")
    policy: list[Effect] | None = Field(
        None,
        min_length=1,
        description="what is varied; diffaugment: color, translation, cutout; ada: blit, geometry, color (default: all); "
        "flips: xflip, yflip (default: xflip)",
    )
    p: float | None = Field(None, ge=0, le=1, description="ada, apa: probability at the start; default: 0")
    target: float | None = Field(
        None,
        gt=-1,
        lt=1,
        description="ada, apa: mean sign of D's logits on real images above which p rises; default: 0.6",
    )
    speed_kimg: NonNegativeFloat | None = Field(
        None, description="ada, apa: kimg in which p moves by 1; 0: p stays as it is; default: 500"
    )
    max_p: float | None = Field(None, gt=0, le=1, description="ada, apa: p is at most so much; default: 1")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return table_check(registry.AUGMENTS, name)

    @field_validator("policy")
    @classmethod
    def _effects(cls, policy: list[Effect] | None, info: ValidationInfo) -> list[Effect] | None:
        if policy is None or info.data.get("name", "none") == "none":  # which a search may put in place of any other
            return policy
        known = registry.AUGMENTS.facts(info.data["name"]).get("policy", ())
        if not known:
            raise ValueError(f"{info.data['name']} has no policy; leave it out")
        if unknown := [effect for effect in policy if effect not in known]:
            raise ValueError(f'{info.data["name"]} has no "{unknown[0]}"; expected some of: {", ".join(known)}')
        if len(set(policy)) != len(policy):
            raise ValueError(f"an effect is named twice: {', '.join(policy)}")
        return policy

    @field_validator("p", "target", "speed_kimg", "max_p")
    @classmethod
    def _adapts(cls, value: float | None, info: ValidationInfo) -> float | None:
        name = info.data.get("name")
        if value is not None and name and not registry.AUGMENTS.facts(name).get("adaptive"):
            raise ValueError(f"{name} has no {info.field_name}; leave it out")
        return value


class TrainSpec(Section):
    """The budget and the optimisers. `batch_size` is global: the sum over all workers."""

    kimg: PositiveFloat = Field(..., description="thousands of real images shown")
    batch_size: int = Field(64, ge=2, le=65536)
    lr_g: PositiveFloat = 2.0e-4
    lr_d: PositiveFloat = 2.0e-4
    beta1: float = Field(0.5, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    n_critic: int = Field(1, ge=1, le=100, description="D steps a G step")
    ema_kimg: NonNegativeFloat = Field(5.0, description="half-life of the generator's moving average in kimg; 0: off")
    ema_rampup: NonNegativeFloat = Field(0.05, description="half-life is at most this share of images seen; 0: off")
    style_mixing: float = Field(0.9, ge=0, le=1, description="share of images drawn from two latents (stylegan2)")
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "fp32", description="auto: bf16 where the hardware is fast in it"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED)


EXTRACTOR = "embedded, classifier:<name:alias>, inception[:<weights>], inception_clean[:<weights>] or dinov2:<weights>"
PERCEPTUAL = "distance that diversity and ppl are in: extractor, of its features, or lpips:<folder of its two files>"


class EvaluationSpec(Section):
    """How metrics are taken while training and in `evaluate`: the protocol."""

    extractor: str = Field("embedded", description=EXTRACTOR)
    perceptual: str = Field("extractor", description=PERCEPTUAL)
    samples: int = Field(1000, ge=16, le=1_000_000, description="generated images")
    every_kimg: PositiveFloat | None = Field(None, description="default: at every checkpoint and at the end")
    seed: int = Field(0, ge=0, le=MAX_SEED)
    data: DataSpec | None = Field(None, description="reference images; default: the training data")

    _whole = field_validator("data")(whole_only)

    @field_validator("extractor")
    @classmethod
    def _known(cls, extractor: str) -> str:
        name, _, argument = extractor.partition(":")
        table_check(registry.EXTRACTORS, name)
        if registry.EXTRACTORS.facts(name).get("argument") and not argument:
            raise ValueError(f"extractor {name} needs an artifact, as in {name}:features:latest")
        if registry.EXTRACTORS.facts(name).get("needed") and not argument:
            raise ValueError(f"extractor {name} needs a file of weights, as in {name}:/path/to/{name}.pth")
        return extractor

    @field_validator("perceptual")
    @classmethod
    def _known_distance(cls, perceptual: str) -> str:
        name, _, folder = perceptual.partition(":")
        if perceptual != "extractor" and (name != "lpips" or not folder):
            raise ValueError(f'expected "extractor" or "lpips:/path/to/the/folder", received "{perceptual}"')
        return perceptual


def check_metrics(names: list[str]) -> list[str]:
    for name in names:
        table_check(registry.METRICS, name)
    if len(set(names)) != len(names):
        raise ValueError(f"a metric is named twice: {', '.join(names)}")
    return names


def unmeasurable(
    metrics: list[str], artifact: str | None, reference: bool, reference_artifact: str | None
) -> str | None:
    """Why metrics can't be taken while training on the sharded dataset `artifact`, of which no node has all; or None.

    `reference`: whether the spec names one of its own, and of which artifact.
    """
    if metrics and (not reference or artifact == reference_artifact):
        what = "a smaller set, packed by itself" if reference else "a smaller set"
        return f"metrics need a reference that is not sharded; set evaluation.data to {what}"
    whole = next((name for name in metrics if "training" in registry.owners_of([name])), None)
    return f"{whole} looks at all images trained on; take it afterwards, by `kind: evaluate`" if whole else None


class Recipe(Section):
    """A GAN's training. With `transfer`, the networks come from a parent artifact and `model` is the parent's."""

    learner: Literal["gan"] = "gan"
    data: DataSpec
    model: ModelSpec = ModelSpec()
    loss: LossSpec = LossSpec()
    transfer: TransferSpec | None = None
    augment: AugmentSpec = AugmentSpec()
    train: TrainSpec
    metrics: list[str] = Field([])
    evaluation: EvaluationSpec = EvaluationSpec()

    _metrics = field_validator("metrics")(check_metrics)

    @field_validator("metrics")
    @classmethod
    def _can_be_asked(cls, metrics: list[str], info: ValidationInfo) -> list[str]:
        model = info.data.get("model")
        for name in metrics if model and model.conditional else []:
            if "critic" in registry.owners_of([name]):
                raise ValueError(f"{name} asks D about images without labels; a conditional one can't say")
        return metrics

    @field_validator("evaluation")
    @classmethod
    def _has_reference(cls, evaluation: EvaluationSpec, info: ValidationInfo) -> EvaluationSpec:
        data, metrics = info.data.get("data"), info.data.get("metrics", [])
        own = evaluation.data.artifact if evaluation.data else None
        if data and data.sharded and (reason := unmeasurable(metrics, data.artifact, evaluation.data is not None, own)):
            raise ValueError(f"data.sharded: {reason}")
        return evaluation

    @field_validator("loss")
    @classmethod
    def _has_styles(cls, loss: LossSpec, info: ValidationInfo) -> LossSpec:
        model = info.data.get("model")
        if loss.path_length and model and not registry.ARCHS.facts(model.arch).get("styles"):
            raise ValueError(f"path_length is for networks with styles; {model.arch} has none")
        return loss

    @field_validator("transfer")
    @classmethod
    def _fits(cls, transfer: TransferSpec | None, info: ValidationInfo) -> TransferSpec | None:
        if transfer is None:
            return None
        for name in methods.idle(transfer.method, transfer.model_dump()):
            raise ValueError(f"{methods.lacks(transfer.method, name)}; leave it out")
        model = info.data.get("model")
        if model and (reason := methods.misfit(transfer.method, model.arch)):
            raise ValueError(reason)
        return transfer

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of all fields."""
        return digest_of(self.model_dump(mode="json"))


class ClassifierModelSpec(Section):
    arch: str = "convnet"
    width: int = Field(32, ge=4, le=512)
    features: int = Field(64, ge=8, le=2048, description="length of the feature vector before the last layer")

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        return table_check(registry.CLASSIFIERS, arch)


class ClassifierTrainSpec(Section):
    kimg: PositiveFloat = 60.0
    batch_size: int = Field(128, ge=2, le=65536)
    lr: PositiveFloat = 2.0e-3
    weight_decay: NonNegativeFloat = 1.0e-4
    seed: int = Field(0, ge=0, le=MAX_SEED)


class ClassifierRecipe(Section):
    """A classifier of the data's labels; its penultimate layer serves as a feature extractor."""

    learner: Literal["classifier"] = "classifier"
    data: DataSpec
    model: ClassifierModelSpec = ClassifierModelSpec()
    train: ClassifierTrainSpec = ClassifierTrainSpec()

    _whole = field_validator("data")(whole_only)

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))
