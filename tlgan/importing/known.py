"""Public networks that people start from: what to expect of a file of that name, and under which licence it stands.

Files are not fetched: download one from its authors' page, then `tlgan import FILE NAME`.
"""

from __future__ import annotations

from dataclasses import dataclass

NVIDIA = "Nvidia Source Code License (research and evaluation only, not for commercial use)"
ADA = "https://github.com/NVlabs/stylegan2-ada-pytorch"
SG3 = "https://github.com/NVlabs/stylegan3"


@dataclass(frozen=True)
class Known:
    """One published file. `sha256` is None where the authors give none."""

    file: str
    about: str
    resolution: int
    licence: str
    page: str
    sha256: str | None = None


KNOWN = (
    Known("ffhq.pkl", "FFHQ faces, ADA", 1024, NVIDIA, ADA),
    Known("metfaces.pkl", "MetFaces paintings, ADA from FFHQ", 1024, NVIDIA, ADA),
    Known("afhqcat.pkl", "AFHQ cats, ADA", 512, NVIDIA, ADA),
    Known("afhqdog.pkl", "AFHQ dogs, ADA", 512, NVIDIA, ADA),
    Known("afhqwild.pkl", "AFHQ wild animals, ADA", 512, NVIDIA, ADA),
    Known("brecahd.pkl", "BreCaHD histopathology, ADA", 512, NVIDIA, ADA),
    Known("stylegan2-ffhq-1024x1024.pkl", "FFHQ faces", 1024, NVIDIA, SG3),
    Known("stylegan2-ffhq-512x512.pkl", "FFHQ faces", 512, NVIDIA, SG3),
    Known("stylegan2-ffhq-256x256.pkl", "FFHQ faces", 256, NVIDIA, SG3),
    Known("stylegan2-ffhqu-1024x1024.pkl", "FFHQ faces, unaligned", 1024, NVIDIA, SG3),
    Known("stylegan2-ffhqu-256x256.pkl", "FFHQ faces, unaligned", 256, NVIDIA, SG3),
    Known("stylegan2-metfaces-1024x1024.pkl", "MetFaces paintings", 1024, NVIDIA, SG3),
    Known("stylegan2-metfacesu-1024x1024.pkl", "MetFaces paintings, unaligned", 1024, NVIDIA, SG3),
    Known("stylegan2-afhqv2-512x512.pkl", "AFHQ v2 animals", 512, NVIDIA, SG3),
    Known("stylegan2-afhqcat-512x512.pkl", "AFHQ cats", 512, NVIDIA, SG3),
    Known("stylegan2-afhqdog-512x512.pkl", "AFHQ dogs", 512, NVIDIA, SG3),
    Known("stylegan2-afhqwild-512x512.pkl", "AFHQ wild animals", 512, NVIDIA, SG3),
    Known("stylegan2-brecahd-512x512.pkl", "BreCaHD histopathology", 512, NVIDIA, SG3),
    Known("stylegan2-celebahq-256x256.pkl", "CelebA-HQ faces", 256, NVIDIA, SG3),
    Known("stylegan2-lsundog-256x256.pkl", "LSUN dogs", 256, NVIDIA, SG3),
)


def find(file: str) -> Known | None:
    """What is known of a file by its name."""
    return next((known for known in KNOWN if known.file == file), None)
