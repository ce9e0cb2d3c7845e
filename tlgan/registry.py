"""The tables of everything that can be named in a spec: one line an entry, loaded only when used.

Adding a network, loss, transfer method, data source or metric is one file and one line here. The tables import
nothing heavy, so a spec can be checked against them without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tlgan import shapes
from tlgan.errors import SpecError, did_you_mean


@dataclass(frozen=True)
class Entry:
    """`target` is `"module:attribute"`; `facts` are what validation may know without importing it."""

    target: str
    facts: dict[str, Any] = field(default_factory=dict)


class Table:
    """A named table of lazily imported things; an unknown name answers with the choices and the nearest one."""

    def __init__(self, what: str, entries: dict[str, Entry | str]) -> None:
        self.what = what
        self._entries = {name: Entry(e) if isinstance(e, str) else e for name, e in entries.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def facts(self, name: str) -> dict[str, Any]:
        return self._entries[self.check(name)].facts

    def check(self, name: str) -> str:
        """`name` itself when it is in the table. Raises `SpecError` with the choices otherwise."""
        if name not in self._entries:
            near = did_you_mean(name, self._entries)
            raise SpecError(
                f'unknown {self.what} "{name}"; expected one of: {", ".join(self._entries)}'
                + (f"; {near}" if near else "")
            )
        return name

    def load(self, name: str) -> Any:
        module, _, attribute = self._entries[self.check(name)].target.partition(":")
        return getattr(importlib.import_module(module), attribute)


def blocks_at(resolution: shapes.Resolution, arch: str | None = None, which: str = "D") -> int:
    """Number of blocks of a network at `resolution` px: one a resolution level, 4 px included (32 px: 4, 8, 16, 32),
    by the longer side.

    A mapping network, which some generators (`which` "G") have, is one more, before the levels.
    """
    mapping = which == "G" and arch is not None and ARCHS.facts(arch).get("styles", False)
    return shapes.longer(resolution).bit_length() - 2 + mapping


def owners_of(metrics: Iterable[str]) -> set[str]:
    """Whose images or what else the metrics are computed from: `fake`, `real`, `training`, ..., and `critic` for D's logits."""
    inputs = [one.partition(".") for name in metrics for one in METRICS.facts(name)["inputs"]]
    owners = {owner for owner, _, _ in inputs} | {"critic" for _, _, view in inputs if view == "critic"}
    return owners | {"training" for owner in owners if owner == "diversity"}


ARCHS = Table(  # styles: G has a mapping network; scales: vectors of G scale its channels
    "network",
    {
        "dcgan": Entry(
            "tlgan.models.dcgan:build", {"resolutions": (32, 64, 128), "options": ("spectral_norm",), "scales": True}
        ),
        "resnet": Entry(
            "tlgan.models.resnet:build", {"resolutions": (32, 64, 128), "options": ("spectral_norm",), "scales": True}
        ),
        "stylegan2": Entry(
            "tlgan.models.stylegan2:build",
            {
                "resolutions": (32, 64, 128, 256, 512, 1024),
                "options": ("style_dim", "max_width", "mapping_layers"),
                "styles": True,
                "scales": True,
                "unbounded": True,
            },
        ),
        "r3gan": Entry(
            "tlgan.models.r3gan:build",
            {"resolutions": (32, 64, 128, 256), "options": ("max_width", "depth"), "unbounded": True},
        ),
    },
)
CLASSIFIERS = Table("classifier", {"convnet": "tlgan.models.classifier:ConvNet"})
LOSSES = Table(
    "loss",
    {
        "minimax": "tlgan.losses.adversarial:Minimax",
        "nonsaturating": "tlgan.losses.adversarial:NonSaturating",
        "least_squares": "tlgan.losses.adversarial:LeastSquares",
        "hinge": "tlgan.losses.adversarial:Hinge",
        "wasserstein": "tlgan.losses.adversarial:Wasserstein",
        "relativistic": "tlgan.losses.adversarial:Relativistic",
    },
)
PENALTIES = Table(
    "penalty",
    {
        "r1": Entry("tlgan.losses.penalties:R1", {"weight": "r1"}),
        "r2": Entry("tlgan.losses.penalties:R2", {"weight": "r2"}),
        "wgan_gp": Entry("tlgan.losses.penalties:WganGp", {"weight": "gp"}),
    },
)
TRANSFERS = Table(  # freezes: it reads freeze_d and freeze_g; options: its own, with defaults; needs: a fact of the network
    "transfer method",
    {
        "finetune": Entry(
            "tlgan.transfer.finetune:Finetune", {"about": "everything trains (Wang et al. 2018, Transferring GANs)"}
        ),
        "freeze": Entry(
            "tlgan.transfer.freeze:Freeze",
            {
                "about": "the first blocks stay (FreezeD, Mo et al. 2020; FreezeG), or thaw one by one",
                "freezes": True,
                "options": {"thaw_kimg": None},
            },
        ),
        "scale_shift": Entry(
            "tlgan.transfer.scale_shift:ScaleShift",
            {
                "about": "of G, only scales, shifts and biases train (BSA, Noguchi and Harada 2019)",
                "freezes": True,
                "needs": "scales",
            },
        ),
        "freeze_mapping": Entry(
            "tlgan.transfer.freeze_mapping:FreezeMapping",
            {
                "about": "the mapping network of G stays, and with it where latents lead",
                "freezes": True,
                "needs": "styles",
            },
        ),
        "kernel_scale_shift": Entry(
            "tlgan.transfer.adapted:KernelScaleShifts",
            {"about": "of G, a scale and a shift a kernel train (AdaFM, Zhao et al. 2020)", "freezes": True},
        ),
        "singular_values": Entry(
            "tlgan.transfer.adapted:SingularValuesOnly",
            {
                "about": "the singular values of all weights train, and nothing else (Few-shot GAN, Robb et al. 2020)",
                "freezes": True,
            },
        ),
        "l2_sp": Entry(
            "tlgan.transfer.l2_sp:L2SP",
            {
                "about": "all weights are held near the source's (L2-SP, Li et al. 2018)",
                "freezes": True,
                "options": {"weight": 0.01},
            },
        ),
        "ewc": Entry(
            "tlgan.transfer.ewc:ElasticWeights",
            {
                "about": "G's weights are held, by their Fisher information (EWC, Li et al. 2020)",
                "freezes": True,
                "options": {"weight": 0.01, "fisher_samples": 64},
            },
        ),
        "feature_matching": Entry(
            "tlgan.transfer.feature_matching:FeatureMatching",
            {
                "about": "generated images have the real ones' mean features in the source's D (Salimans et al. 2016)",
                "freezes": True,
                "options": {"weight": 1.0},
            },
        ),
        "feature_distillation": Entry(
            "tlgan.transfer.feature_distillation:FeatureDistillation",
            {
                "about": "D's features of an image are held near those of the source's D (Mo et al. 2020)",
                "freezes": True,
                "options": {"weight": 1.0},
            },
        ),
        "cdc": Entry(
            "tlgan.transfer.cdc:CrossDomain",
            {
                "about": "distances between images are the source's; D sees patches, and a few images whole (Ojha et al. 2021)",
                "freezes": True,
                "options": {"weight": 1000.0, "anchors": 10},
            },
        ),
        "minegan": Entry(
            "tlgan.transfer.minegan:MineGan",
            {
                "about": "a miner of latents trains first, then everything (MineGAN, Wang et al. 2020)",
                "freezes": True,
                "options": {"miner_layers": 2, "miner_kimg": 4.0},
            },
        ),
        "kernel_modulation": Entry(
            "tlgan.transfer.kernel_modulation:ModulatedKernels",
            {
                "about": "kernels that a probing finds important are kept and modulated in low rank (AdAM, Zhao et al. 2022)",
                "freezes": True,
                "options": {"probe_kimg": 2.0, "modulated": 0.25, "rank": 1, "fisher_samples": 64},
            },
        ),
    },
)
AUGMENTS = Table(
    "augmentation",
    {
        "none": "tlgan.augment:Identity",
        "diffaugment": Entry("tlgan.augment.diffaugment:DiffAugment", {"policy": ("color", "translation", "cutout")}),
        "ada": Entry("tlgan.augment.ada:Ada", {"policy": ("blit", "geometry", "color"), "adaptive": True}),
        "apa": Entry("tlgan.augment.apa:Apa", {"adaptive": True}),
        "flips": Entry("tlgan.augment.flips:Flips", {"policy": ("xflip", "yflip")}),
    },
)
SOURCES = Table(
    "data source",
    {
        "glyphs": Entry("tlgan.data.glyphs:Glyphs", {"channels": 1}),
        "digits": Entry("tlgan.data.digits:Digits", {"channels": 1}),
        "photos": Entry("tlgan.data.photos:Photos", {"channels": 3}),
        "folder": Entry("tlgan.data.folder:Folder", {"path": True}),
        "parquet": Entry("tlgan.data.parquet:ParquetSource", {"path": True}),
        "torchvision": Entry("tlgan.data.vision:Torchvision", {"argument": True}),
    },
)
_FEATURES = ("real.features", "fake.features")
METRICS = Table(
    "metric",
    {
        "fid": Entry("tlgan.metrics.frechet:fid", {"mode": "min", "inputs": _FEATURES}),
        "kid": Entry("tlgan.metrics.kernel:kid", {"mode": "min", "inputs": _FEATURES}),
        "precision": Entry("tlgan.metrics.neighbours:precision", {"mode": "max", "inputs": _FEATURES}),
        "recall": Entry("tlgan.metrics.neighbours:recall", {"mode": "max", "inputs": _FEATURES}),
        "density": Entry("tlgan.metrics.neighbours:density", {"mode": "max", "inputs": _FEATURES}),
        "coverage": Entry("tlgan.metrics.neighbours:coverage", {"mode": "max", "inputs": _FEATURES}),
        "is": Entry("tlgan.metrics.classes:inception_score", {"mode": "max", "inputs": ("fake.classes",)}),
        "semantic_agreement": Entry(
            "tlgan.metrics.classes:semantic_agreement", {"mode": "max", "inputs": ("real.classes", "fake.classes")}
        ),
        "duplicates": Entry("tlgan.metrics.copies:duplicates", {"mode": "min", "inputs": _FEATURES}),
        "copy_rate": Entry(
            "tlgan.metrics.copies:copy_rate",
            {"mode": "min", "inputs": ("training.features", "fake.features", "mirrored.features")},
        ),
        "diversity": Entry("tlgan.metrics.diversity:diversity", {"mode": "max", "inputs": ("diversity.pairs",)}),
        "ppl": Entry("tlgan.metrics.paths:ppl", {"mode": "min", "inputs": ("path.lengths",)}),
        "adversarial": Entry(
            "tlgan.metrics.critic:adversarial", {"mode": "min", "inputs": ("real.critic", "fake.critic")}
        ),
        "d_overfit": Entry(
            "tlgan.metrics.critic:d_overfit",
            {"mode": "min", "inputs": ("training.critic", "real.critic", "fake.critic")},
        ),
    },
)
EXTRACTORS = Table(
    "feature extractor",
    {
        "embedded": Entry("tlgan.metrics.extractors:ClassifierFeatures"),
        "classifier": Entry("tlgan.metrics.extractors:ClassifierFeatures", {"argument": True}),
        "inception": Entry("tlgan.metrics.inception:InceptionFeatures", {"weights": True}),
        "inception_clean": Entry("tlgan.metrics.inception:CleanInceptionFeatures", {"weights": True}),
        "dinov2": Entry("tlgan.metrics.dinov2:DinoFeatures", {"weights": True, "needed": True, "classes": False}),
    },
)
