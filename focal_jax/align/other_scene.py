"""Finds frames that do not belong to a stack: blank, of another scene, or rotated or mirrored; and, once they are
aligned, frames that differ from the others in a part of the image or in exposure.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Shaped, UInt8
from PIL import Image

from focal_jax.focus.classical import luminance_on_host
from focal_jax.stack import as_float

_SIDE_PX = 24  # size at which frames of one scene look alike whatever their focus
_ALIKE = 0.7  # correlation at that size; 0.9 or more between the ends of real sweeps, less for other scenes
_FLAT = 1.0  # standard deviation (of 255) below which an image is blank
_CHANGE = 30 / 255  # minimum change of a cell of an aligned frame; defocus changes it by less
_CHANGED = 0.02  # minimum share of changed cells; none in real sweeps without moving objects
_MIN_FRAMES, _NEAR = 3, 2  # number of frames needed, and distance up to which frames are compared


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


def find_changed_frames(
  aligned: Shaped[np.ndarray, 'N H W 3'], coverage: Float[np.ndarray, 'N H W']
) -> tuple[list[int], Float32[np.ndarray, 'N']]:
  """Frames that differ from those before and behind in a part of the image, for example damaged files or frames with
  something that moved; and the brightness of all.

  Args:
    aligned: RGB, uint8 or float 0 .. 1.
    coverage: share of each pixel that came from inside its frame, 0 .. 1.

  Returns:
    Indices of these frames, [] if there are fewer than three frames or they have nothing in common; and mean values
    relative to their median, 1 for all frames if they have nothing in common.
  """
  inside = np.min([_cells(one[..., None])[..., 0] for one in coverage], axis=0) > 0.99
  if not inside.any():
    return [], np.ones(len(aligned), np.float32)
  cells = np.stack([_cells(as_float(frame))[inside] for frame in aligned])
  means = np.maximum(cells.mean(axis=(1, 2)), 1 / 255)
  brightness = means / np.median(means)
  if len(cells) < _MIN_FRAMES:
    return [], brightness
  cells /= brightness[:, None, None]
  found = []
  for n in range(len(cells)):
    near = [k for k in range(max(0, n - _NEAR), min(len(cells), n + _NEAR + 1)) if k != n]
    change = np.abs(cells[n] - cells[near]).max(axis=-1).min(axis=0)
    if np.mean(change > _CHANGE) >= _CHANGED:
      found.append(n)
  return found, brightness


def _cells(image: Float[np.ndarray, 'H W C']) -> Float32[np.ndarray, 'h w C']:
  """Means over square cells, about `_SIDE_PX` along the longer side."""
  step = max(1, max(image.shape[:2]) // _SIDE_PX)
  rows, columns = (max(1, length // step) for length in image.shape[:2])
  tall, wide = (min(step, length) for length in image.shape[:2])
  cells = np.asarray(image)[: rows * tall, : columns * wide].reshape(rows, tall, columns, wide, -1)
  return cells.mean(axis=(1, 3), dtype=np.float32)
