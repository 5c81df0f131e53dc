"""Depth as a 16-bit PNG, with a JSON file that gives its scale."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from focal_jax.files.pictures import save_image

_LARGEST = 65535


def write_depth_png(path: Path, depth: Float[np.ndarray, 'H W'], unit: str) -> None:
  """Writes `path`, a 16-bit grey PNG, and its scale to a file of the same name that ends in .json.

  depth = offset + scale * value for values 1 .. 65535, which span the range of the depth, so the error is at most half
  a step (scale / 2). 0 marks pixels without a depth (not finite).

  Args:
    path: the PNG file.
    depth: in any unit.
    unit: its unit, for the JSON file.
  """
  known = np.isfinite(depth)
  low, high = (
    float(limit(depth, where=known, initial=start)) for limit, start in ((np.min, np.inf), (np.max, -np.inf))
  )
  low, high = (low, high) if known.any() else (0.0, 0.0)
  scale = (high - low) / (_LARGEST - 1)
  pixels = np.zeros(depth.shape, np.uint16)
  for row, values in zip(pixels, depth, strict=True):  # row by row, to save memory
    shown = np.isfinite(values)
    row[shown] = 1 + np.round((values[shown].astype(np.float64) - low) / (scale or 1))
  save_image(path, pixels)
  sidecar = {
    'unit': unit,
    'scale': scale,
    'offset': low - scale,
    'no_depth': 0,
    'meaning': 'depth = offset + scale * value; value 0: no depth',
  }
  path.with_suffix('.json').write_text(json.dumps(sidecar, indent=2) + '\n')
