"""Pictures for people: depth maps in colour, with a scale, beside the frames they come from."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

DEPTH_COLOURS = 'turbo'
CONFIDENCE_COLOURS = 'gray'


def colour(values: np.ndarray, low: float, high: float, colours: str = DEPTH_COLOURS) -> np.ndarray:
  """uint8 RGB of a map between `low` and `high`; what is not finite is grey."""
  scaled = (values - low) / (high - low if high > low else 1.0)
  rgb = matplotlib.colormaps[colours](np.clip(np.nan_to_num(scaled), 0.0, 1.0))[..., :3]
  rgb[~np.isfinite(values)] = 0.5
  return np.round(rgb * 255).astype(np.uint8)


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Images 0 .. 1 as uint8; uint8 as it is."""
  return images if images.dtype == np.uint8 else np.round(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Panel:
  """One picture of a contact sheet: an image, or, with a unit, a map drawn in colour with a scale."""

  title: str
  image: np.ndarray  # [H, W, 3] uint8 or 0 .. 1; a map [H, W], what is not finite being grey
  unit: str | None = None
  limits: tuple[float, float] | None = None  # of the scale; None: the map's own
  colours: str = DEPTH_COLOURS


def contact_sheet(path: Path, rows: Sequence[Sequence[Panel]], title: str = '') -> None:
  """Writes rows of panels as one PNG."""
  columns = max(len(row) for row in rows)
  height, width = rows[0][0].image.shape[:2]
  cell = 3.2  # inches; a fifth of it is for the scale
  figure = Figure(figsize=(columns * cell, len(rows) * (0.8 * cell * height / width + 0.4) + 0.3), layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.subplots(len(rows), columns, squeeze=False)
  for axis in axes.flat:
    axis.axis('off')
  for row, row_axes in zip(rows, axes, strict=True):
    for panel, axis in zip(row, row_axes, strict=False):
      axis.set_title(panel.title, fontsize=9)
      if panel.unit is None:
        axis.imshow(to_uint8(panel.image))
      else:
        low, high = panel.limits or (None, None)
        colours = matplotlib.colormaps[panel.colours].with_extremes(bad='0.5')
        image = axis.imshow(panel.image, cmap=colours, vmin=low, vmax=high)
        figure.colorbar(image, ax=axis, shrink=0.85, pad=0.01).set_label(panel.unit, fontsize=8)
  figure.suptitle(title, fontsize=11)
  figure.savefig(path, dpi=110)


def tile(rows: Sequence[Sequence[Panel]], title: str = '') -> np.ndarray:
  """Rows of panels of one size, pixel by pixel, under their names: uint8 [H, W, 3].

  For pictures that are made often, while others wait: a contact sheet takes a hundred times as long.
  """
  height, width = rows[0][0].image.shape[:2]
  line, gap = 14, 4  # px
  top = 2 * line + gap
  columns = max(len(row) for row in rows)
  sheet = Image.new('RGB', (columns * (width + gap) - gap, top + len(rows) * (height + gap) - gap), 'white')
  draw = ImageDraw.Draw(sheet)
  draw.text((2, 0), title, fill='black')
  for row, panels in enumerate(rows):
    for column, panel in enumerate(panels):
      left = column * (width + gap)
      pixels = panel.image if panel.unit is None else colour(panel.image, *panel.limits, panel.colours)
      sheet.paste(Image.fromarray(to_uint8(pixels)), (left, top + row * (height + gap)))
      if row == 0:
        draw.text((left + 2, line), panel.title, fill='black')
  return np.asarray(sheet)


def save_image(path: Path, image: np.ndarray) -> None:
  """Writes uint8 [H, W, 3] or [H, W]."""
  Image.fromarray(image).save(path)
