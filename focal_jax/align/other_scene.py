"""Finds frames that do not belong to a stack: blank, of another scene, or rotated or mirrored."""

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from PIL import Image

from focal_jax.focus.classical import luminance_on_host

_SIDE_PX = 24  # size at which frames of one scene look alike whatever their focus
_ALIKE = 0.7  # correlation at that size; 0.9 or more between the ends of real sweeps, less for other scenes
_FLAT = 1.0  # standard deviation (of 255) below which an image is blank


def find_outlier_frames(images: UInt8[np.ndarray, 'N H W 3'], comparable: Bool[np.ndarray, 'N']) -> list[int]:
  """Indices of frames that are blank or show another scene.

  Args:
    images: RGB 0 .. 255.
    comparable: which frames could be compared by phase correlation; only the others are candidates.

  Returns:
    The indices; [] if fewer than three frames, or less than half, are comparable.
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
