"""Depth as a 16-bit PNG, and a JSON file beside it that says what its values mean."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from focal_jax.files.pictures import save_image

_LARGEST = 65535


def write_depth_png(path: Path, depth: Float[np.ndarray, 'H W'], unit: str) -> None:
  """Writes `path`, grey, 16 bits, and its scale beside it, in a file of the same name that ends in .json.

  depth = offset + scale * value for values 1 .. 65535, which span the least to the greatest depth, so that half a step
  (scale / 2) is the most that is lost. 0 is for pixels without a depth (not finite).
  """
  known = np.isfinite(depth)
  low, high = (
    float(limit(depth, where=known, initial=start)) for limit, start in ((np.min, np.inf), (np.max, -np.inf))
  )
  low, high = (low, high) if known.any() else (0.0, 0.0)
  scale = (high - low) / (_LARGEST - 1)
  pixels = np.zeros(depth.shape, np.uint16)
  for row, values in zip(pixels, depth, strict=True):  # one by one, for the sake of memory
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
