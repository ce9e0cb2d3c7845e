"""Every letter and digit of the TrueType fonts that matplotlib ships: about 29 000 different glyphs, 20 scripts.

A small stroke-shaped world with real variety, on every machine, without a download: what a handwriting GAN can be
pretrained on. A glyph is the image of one character (Unicode category L* or Nd) in one font, white on black, centred,
scaled so that it fills the picture but for a margin. Left out: characters without ink, repeated outlines
within a font (Latin A and Greek Alpha are one drawing; the lower code point stays), the Last Resort font (placeholders)
and TeX's symbol encodings (where "A" is not an A).

Labels are scripts (LATIN, GREEK, CYRILLIC, ...), read from the Unicode name after compatibility folding, so that the
mathematical bold A is LATIN. Decimal digits of all scripts are DIGIT; modifier letters without a script are MODIFIER.
"""

from __future__ import annotations

import unicodedata
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFont

from tlgan.data.source import UInt8Array
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution, sides

MARGIN = 0.08  # share of the side left black on each side of the longer dimension
OVERSAMPLE = 2  # glyphs are drawn this much larger at least, and then shrunk
EXCLUDED = ("LastResort", "cmex10", "cmsy10")
_SCRIPT_OF_WORD = {"TURNED": "LATIN", "OLD": "OLD-ITALIC"}


class Glyph(NamedTuple):
    font: Path
    character: str
    script: str


class Glyphs:
    """Rendered when read; the list of glyphs is made at the first question (about a second)."""

    channels = 1
    parallel = False
    own_split = False

    def __init__(self, spec: DataSpec) -> None:
        self._fonts = [path for path in font_files() if not path.name.startswith(EXCLUDED)]

    @cached_property
    def glyphs(self) -> list[Glyph]:
        return [glyph for font in self._fonts for glyph in glyphs_of(font)]

    @cached_property
    def label_names(self) -> list[str]:
        return sorted({glyph.script for glyph in self.glyphs})

    @cached_property
    def _label_of(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.label_names)}

    def __len__(self) -> int:
        return len(self.glyphs)

    def name_of(self, index: int) -> str:
        glyph = self.glyphs[index]
        return f"U+{ord(glyph.character):04X} in {glyph.font.name}"

    def read(self, index: int, size: Resolution) -> tuple[UInt8Array, int]:
        glyph = self.glyphs[index]
        return render(glyph.font, glyph.character, size)[None], self._label_of[glyph.script]

    def fingerprint(self) -> dict[str, Any]:
        fonts = {path.name: path.stat().st_size for path in self._fonts}
        return {"fonts": fonts, "unicode": unicodedata.unidata_version, "pillow": version("pillow")}


def font_files() -> list[Path]:
    import matplotlib

    return sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf"))


@cache
def glyphs_of(font: Path) -> list[Glyph]:
    """The font's letters and digits by code point, without the inkless and the repeated."""
    from fontTools.ttLib import TTFont
    from matplotlib import ft2font

    with TTFont(font, lazy=True) as tables:
        index_of = tables.getReverseGlyphMap()
        cmap = {code: index_of[name] for code, name in (tables.getBestCmap() or {}).items()}
    outlines = ft2font.FT2Font(str(font))
    flags: Any = getattr(ft2font, "LoadFlags", None)  # before matplotlib 3.10: module constants
    no_scale = flags.NO_SCALE if flags else vars(ft2font)["LOAD_NO_SCALE"]
    seen: set[tuple[bytes, bytes]] = set()
    found = []
    for code in sorted(cmap):
        character = chr(code)
        if cmap[code] == 0 or not is_letter_or_digit(character):  # glyph 0 is .notdef
            continue
        outlines.load_glyph(cmap[code], flags=no_scale)
        points, commands = outlines.get_path()
        outline = (points.tobytes(), commands.tobytes())
        if len(points) and outline not in seen:
            seen.add(outline)
            found.append(Glyph(font, character, script_of(character)))
    return found


def is_letter_or_digit(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "L" or category == "Nd"


def script_of(character: str) -> str:
    """LATIN for "a", "ª" and the mathematical bold A; DIGIT for decimal digits; see the module's description."""
    if unicodedata.category(character) == "Nd":
        return "DIGIT"
    base = unicodedata.normalize("NFKC", character)[0]
    word = unicodedata.name(base if base.isalpha() else character, "UNNAMED").split()[0]
    if unicodedata.category(character) == "Lm" and word in ("MODIFIER", "CARON", "SPACE", "MACRON"):
        return "MODIFIER"
    return _SCRIPT_OF_WORD.get(word, word)


@lru_cache(maxsize=8)
def _font(path: Path, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)


def render(font: Path, character: str, size: Resolution) -> UInt8Array:
    """uint8 `[height, width]`. Drawn large, cut to its ink, shrunk with an antialiasing filter, centred."""
    inner_height, inner_width = (max(4, round(side * (1 - 2 * MARGIN))) for side in sides(size))
    for zoom in (1, 4, 16):  # a comma-sized letter is drawn again larger rather than blown up
        mask = _font(font, OVERSAMPLE * max(sides(size)) * zoom).getmask(character, mode="L")
        ink = Image.frombytes("L", mask.size, bytes(mask))
        box = ink.getbbox()
        if box and (box[2] - box[0] >= inner_width or box[3] - box[1] >= inner_height):
            break
    image = np.zeros(sides(size), np.uint8)
    if box is None:
        return image
    scale = min(inner_width / (box[2] - box[0]), inner_height / (box[3] - box[1]))
    width, height = (max(1, round((box[k + 2] - box[k]) * scale)) for k in (0, 1))
    small = ink.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    left, top = (image.shape[1] - width) // 2, (image.shape[0] - height) // 2
    image[top : top + height, left : left + width] = np.asarray(small)
    return image
