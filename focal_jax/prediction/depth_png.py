"""Depth as a 16-bit PNG, and a JSON file beside it that says what its values mean."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

_LARGEST = 65535


def write_depth_png(path: Path, depth: Float[np.ndarray, 'H W'], unit: str) -> None:
  """Writes `path`, grey, 16 bits, and its scale beside it, in a file of the same name that ends in .json.

  depth = offset + scale * value for values 1 .. 65535, which span the least to the greatest depth, so that half a step
  (scale / 2) is the most that is lost. 0 is for pixels without a depth (not finite).
  """
  known = np.isfinite(depth)
  values = depth[known].astype(np.float64)
  low, high = (values.min(), values.max()) if known.any() else (0.0, 0.0)
  scale = (high - low) / (_LARGEST - 1)
  pixels = np.zeros(depth.shape, np.uint16)
  pixels[known] = 1 + np.round((values - low) / (scale or 1))
  Image.fromarray(pixels).save(path)
  sidecar = {
    'unit': unit,
    'scale': scale,
    'offset': low - scale,
    'no_depth': 0,
    'meaning': 'depth = offset + scale * value; value 0: no depth',
  }
  path.with_suffix('.json').write_text(json.dumps(sidecar, indent=2) + '\n')
