"""Finds frames that show something else than the others: another scene, nothing, or the same turned or mirrored."""

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from PIL import Image

from focal_jax.focus.classical import luminance_on_host

_SIDE_PX = 24  # at which frames of one scene look alike, however they are focused
_ALIKE = 0.7  # correlation at that size: of the ends of real sweeps 0.9 and more, of other scenes and turned ones less
_FLAT = 1.0  # standard deviation, of 255, below which a picture shows nothing


def other_scenes(images: UInt8[np.ndarray, 'N H W 3'], comparable: Bool[np.ndarray, 'N']) -> list[int]:
  """The frames that show something else, or nothing, of those that were not comparable with the rest; none if the rest
  are fewer than three or than half.
  """
  if comparable.sum() < max(3, len(images) / 2):
    return []
  small = np.stack([_reduced(image) for image in images])
  spread = small.std(axis=1)
  same = small[comparable & (spread >= _FLAT)]
  if not len(same):
    return []
  return [
    int(n)
    for n in np.flatnonzero(~comparable)
    if spread[n] < _FLAT or np.corrcoef(small[n], same)[0, 1:].max() < _ALIKE
  ]


def _reduced(image: UInt8[np.ndarray, 'H W 3']) -> Float64[np.ndarray, 'K']:
  height, width = image.shape[:2]
  scale = _SIDE_PX / max(height, width)
  size = max(1, round(width * scale)), max(1, round(height * scale))
  return np.asarray(Image.fromarray(luminance_on_host(image)).resize(size, Image.Resampling.BOX), np.float64).ravel()
