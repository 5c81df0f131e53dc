"""Draws images: depth maps in colour, with a scale, next to their frames.

Titles contain file names. They are drawn literally, never as formulas, shortened if too long, and with a question mark
for characters that no installed font has.
"""

import dataclasses
import functools
import itertools
import unicodedata
from collections.abc import Hashable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image, ImageDraw

DEPTH_COLOURS = 'turbo'
CONFIDENCE_COLOURS = 'gray'

_FONT = 'DejaVu Sans'  # comes with matplotlib
# Fonts with Chinese, Japanese and Korean letters, of Linux, Windows and macOS.
_MORE_FONTS = (
  'Noto Sans CJK SC',
  'Noto Sans CJK JP',
  'Noto Sans SC',
  'Source Han Sans SC',
  'WenQuanYi Zen Hei',
  'WenQuanYi Micro Hei',
  'Droid Sans Fallback',
  'Microsoft YaHei',
  'SimHei',
  'Yu Gothic',
  'Malgun Gothic',
  'PingFang SC',
  'Hiragino Sans GB',
  'Arial Unicode MS',
)
# Grey level that unreliable pixels of a map are blended with, and its weight.
FADED_GREY, FADED_SHARE = 0.6, 0.85
_CELL_INCHES = 3.2
_TILE_PX = 80  # minimum width of a tile, so that its name can be read
_MEASURED_POINTS = 12
_ZLIB_RLE = 3  # Z_RLE of zlib's strategies


def colour(values: np.ndarray, low: float, high: float, colours: str = DEPTH_COLOURS) -> np.ndarray:
  """uint8 RGB of a map between `low` and `high`; values that are not finite are grey."""
  scaled = (values - low) / (high - low if high > low else 1.0)
  rgb = matplotlib.colormaps[colours](np.clip(np.nan_to_num(scaled), 0.0, 1.0))[..., :3]
  rgb[~np.isfinite(values)] = 0.5
  return np.round(rgb * 255).astype(np.uint8)


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Images 0 .. 1 as uint8; uint8 images unchanged."""
  return images if images.dtype == np.uint8 else np.round(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)


@functools.cache
def _fonts() -> tuple[tuple[str, frozenset[int]], ...]:
  """Families that are installed, and the characters that each can draw."""
  installed = {font.name: font.fname for font in font_manager.fontManager.ttflist}
  installed[_FONT] = font_manager.findfont(_FONT)
  families = [family for family in (_FONT, *_MORE_FONTS) if family in installed]
  return tuple((family, frozenset(font_manager.get_font(installed[family]).get_charmap())) for family in families)


@functools.cache
def _advance(character: str) -> float:
  """Width of a character in sizes of the font."""
  family, characters = _fonts()[0]
  if ord(character) not in characters:
    return 1.0
  font = font_manager.get_font(font_manager.findfont(family))
  font.set_size(_MEASURED_POINTS, 72)
  return font.load_char(ord(character)).linearHoriAdvance / 65536 / _MEASURED_POINTS


def plain(text: str, room: float | None = None) -> str:
  """The text in one line, as the fonts at hand can draw it.

  Args:
    text: any, such as the name of a file.
    room: for it, in sizes of the font. The middle is left out of longer text, for names differ at their ends. None: no
      limit.
  """
  # Compose letters that macOS stores decomposed, because few fonts position the parts.
  text = ' '.join(unicodedata.normalize('NFC', text).split())
  known = frozenset().union(*(characters for _, characters in _fonts()))
  text = ''.join(c if ord(c) in known and c.isprintable() else '?' for c in text)
  widths = [_advance(c) for c in text]
  if room is None or sum(widths) <= room:
    return text
  head, tail, room = 0, len(text), room - _advance('…')
  while head < tail and room >= widths[head]:  # from both ends by turns
    room -= widths[head]
    head += 1
    if head < tail and room >= widths[tail - 1]:
      tail -= 1
      room -= widths[tail]
  return f'{text[:head]}…{text[tail:]}'


def _text_style(size: int) -> dict:
  return {'fontsize': size, 'fontfamily': [family for family, _ in _fonts()], 'parse_math': False}


@dataclasses.dataclass(frozen=True)
class Panel:
  """One picture of a contact sheet: an image, or, with a unit, a map drawn in colour with a scale."""

  title: str
  image: np.ndarray  # [H, W, 3] uint8 or 0 .. 1; or a map [H, W], drawn grey where not finite
  unit: str | None = None
  limits: tuple[float, float] | None = None  # limits of the colour scale; None: those of the map
  colours: str = DEPTH_COLOURS
  faded: np.ndarray | None = None  # bool [H, W]: pixels of a map to fade to grey; None: none

  @property
  def scale(self) -> Hashable:
    """Equal for maps with the same scale; None for images."""
    if self.unit is None:
      return None
    return (self.unit, self.colours, self.limits) if self.limits else id(self)


def contact_sheet(path: Path, rows: Sequence[Sequence[Panel | None]], title: str = '') -> None:
  """Writes rows of panels as one PNG. None leaves a cell empty; the first panel determines the shape of all.

  Neighbours with the same limits share a scale, and a column shows each title once. Letters grow with the number of
  columns, because wide sheets are reduced for display.
  """
  columns = max(len(row) for row in rows)
  height, width = rows[0][0].image.shape[:2]
  cell, size = _CELL_INCHES, max(9, 2 * columns)  # of a cell, a fifth is for the scale
  lines = max((panel.title.count('\n') for row in rows for panel in row if panel), default=0) + 1
  tall = 0.8 * cell * height / width + 0.2 + 0.022 * size * lines
  figure = Figure(figsize=(columns * cell, len(rows) * tall + 0.034 * size), layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.subplots(len(rows), columns, squeeze=False)
  for axis in axes.flat:
    axis.axis('off')
  shown = set()
  for row, row_axes in zip(rows, axes, strict=True):
    drawn = []
    for column, (panel, axis) in enumerate(zip(row, row_axes, strict=False)):
      if panel is None:
        continue
      if (column, panel.title) not in shown:
        shown.add((column, panel.title))
        text = '\n'.join(plain(line, 0.95 * cell * 72 / size) for line in panel.title.split('\n'))
        axis.set_title(text, **_text_style(size))
      drawn.append((panel, axis, _draw(panel, axis)))
    for scale, group in itertools.groupby(drawn, lambda one: one[0].scale):
      if scale is not None:
        panels, beside, images = zip(*group, strict=True)
        bar = figure.colorbar(images[0], ax=beside, shrink=0.85, pad=0.01, fraction=0.15 / len(beside))
        bar.set_label(plain(panels[0].unit, 20.0), **_text_style(size - 1))
        bar.ax.tick_params(labelsize=size - 1)
  figure.suptitle(plain(title, 0.95 * columns * cell * 72 / (size + 2)), **_text_style(size + 2))
  figure.savefig(path, dpi=110)


def _draw(panel: Panel, axis: Axes) -> AxesImage:
  if panel.unit is None:
    return axis.imshow(to_uint8(panel.image))
  low, high = panel.limits or (None, None)
  image = axis.imshow(
    panel.image, cmap=matplotlib.colormaps[panel.colours].with_extremes(bad='0.5'), vmin=low, vmax=high
  )
  if panel.faded is not None:
    grey = np.full((*panel.faded.shape, 4), FADED_GREY, np.float32)
    grey[..., 3] = FADED_SHARE * panel.faded
    axis.imshow(grey)
  return image


def tile(rows: Sequence[Sequence[Panel]], title: str = '') -> np.ndarray:
  """Rows of panels of one size, small ones enlarged by a whole number, under their names: uint8 [H, W, 3].

  For pictures that are made often, while others wait: a contact sheet takes a hundred times as long.
  """
  height, width = rows[0][0].image.shape[:2]
  times = -(-_TILE_PX // width)
  height, width = times * height, times * width
  line, gap = 14, 4  # px
  top = 2 * line + gap
  columns = max(len(row) for row in rows)
  sheet = Image.new('RGB', (columns * (width + gap) - gap, top + len(rows) * (height + gap) - gap), 'white')
  draw = ImageDraw.Draw(sheet)
  draw.text((2, 0), _drawable(title), fill='black')
  for row, panels in enumerate(rows):
    for column, panel in enumerate(panels):
      left = column * (width + gap)
      pixels = panel.image if panel.unit is None else colour(panel.image, *panel.limits, panel.colours)
      pixels = to_uint8(pixels).repeat(times, axis=0).repeat(times, axis=1)
      sheet.paste(Image.fromarray(pixels), (left, top + row * (height + gap)))
      if row == 0:
        draw.text((left + 2, line), _drawable(panel.title, width / 10), fill='black')
  return np.asarray(sheet)


def _drawable(text: str, room: float | None = None) -> str:
  """In the letters of the font that Pillow has without files."""
  return plain(text, room).replace('…', '..').encode('latin-1', 'replace').decode('latin-1')


def save_image(path: Path, image: np.ndarray, exif: Image.Exif | None = None) -> None:
  """Writes uint8 [H, W, 3] or [H, W] as a PNG, with EXIF that is to go with it."""
  # Runs alone are looked for: of photographs, a fourth of the time for a tenth more bytes.
  Image.fromarray(image).save(path, compress_level=1, compress_type=_ZLIB_RLE, **({'exif': exif} if exif else {}))
