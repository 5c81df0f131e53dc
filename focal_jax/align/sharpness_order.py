"""Finds the order of a sweep from the sharpness of its frames: in a sweep in one direction, each block of the image
comes into focus once.

The frames need to be aligned only to within a block. The logarithm of a block's high-frequency energy rises to one peak
and falls again; `_excess` measures its additional variation. The order is the shortest path through the frames, where
the distance of two frames is the difference of their sharpness. Frames with similar blur, for example the two ends of a
sweep, can confuse it, so it needs confirmation by other evidence.
"""

import numpy as np
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from scipy import ndimage

from focal_jax.focus.classical import luminance_on_host

_SIDE_PX, _BLOCK_PX = 512, 16
_SIGMA_PX = 1.5  # standard deviation of the Gaussian that separates high frequencies
_NOISE = 0.5  # high-frequency energy of a block without texture, (grey levels of 255)^2
_MIN_CHANGE = 1.0  # minimum range of the logarithm over the frames for a block to count
_MIN_FRAMES, _MIN_BLOCKS = 3, 48
_OUT_OF_ORDER = 0.3  # minimum reduction of the excess by the new order
_IN_ORDER = 0.3  # maximum excess in the new order
_SHARE = 0.05  # minimum share of blocks sharpest in a frame; with fewer than three such frames, both ends look alike


def order_by_sharpness(images: UInt8[np.ndarray, 'N H W 3']) -> list[int] | None:
  """The order in which the frames are a sweep in one direction, if it is clear that they are not in such an order; for
  example in a sweep that goes back and forth, or in shuffled files.

  Args:
    images: RGB 0 .. 255, in their present order.

  Returns:
    Indices of the frames, far to near or near to far, whichever agrees better with the present order. None: the present
      order may be right, or no order explains the frames.
  """
  if len(images) < _MIN_FRAMES:
    return None
  sharpness = np.stack([_sharpness(image) for image in images])
  sharpness = sharpness[:, np.ptp(sharpness, axis=0) > _MIN_CHANGE]
  if sharpness.shape[1] < _MIN_BLOCKS:
    return None
  given = _excess(sharpness)
  if given < _OUT_OF_ORDER:
    return None
  relative = sharpness - sharpness.mean(axis=0)
  # Root mean square difference of all pairs of rows, without storing the differences of all pairs.
  squares = (relative**2).sum(axis=1)
  apart = squares[:, None] + squares - 2 * relative @ relative.T
  distance = np.sqrt(np.maximum(apart, 0) / sharpness.shape[1])
  orders = [_shortest(distance, start) for start in (_spectral(distance), np.arange(len(images)))]
  order = min(orders, key=lambda one: distance[one[1:], one[:-1]].sum())
  found = _excess(sharpness[order])
  peaks = np.bincount(sharpness.argmax(axis=0), minlength=len(images)) / sharpness.shape[1]
  if found > _IN_ORDER or given - found < _OUT_OF_ORDER or np.count_nonzero(peaks >= _SHARE) < 3:
    return None
  # The direction that agrees better with the given order.
  if np.corrcoef(order, np.arange(len(order)))[0, 1] < 0:
    order = order[::-1]
  return order.tolist()


def _sharpness(image: UInt8[np.ndarray, 'H W 3']) -> Float[np.ndarray, ' K']:
  """Logarithm of the high-frequency energy of each block."""
  luma = luminance_on_host(image).astype(np.float32)
  scale = min(1.0, _SIDE_PX / max(luma.shape))
  size = tuple(max(1, round(length * scale)) for length in luma.shape[::-1])
  small = np.asarray(Image.fromarray(luma).resize(size, Image.Resampling.BOX))
  energy = (small - ndimage.gaussian_filter(small, _SIGMA_PX)) ** 2
  rows, columns = (length // _BLOCK_PX for length in energy.shape)
  blocks = energy[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
  return np.log(blocks.mean(axis=(1, 3)).ravel() + _NOISE)


def _excess(sharpness: Float[np.ndarray, 'N K']) -> float:
  """Variation of the blocks' sharpness beyond one rise and one fall, relative to its range: mean over blocks."""
  path = np.abs(np.diff(sharpness, axis=0)).sum(axis=0)
  highest, lowest = sharpness.max(axis=0), sharpness.min(axis=0)
  once = 2 * highest - sharpness[0] - sharpness[-1]
  return float(np.mean((path - once) / (highest - lowest)))


def _spectral(distance: Float[np.ndarray, 'N N']) -> Int64[np.ndarray, ' N']:
  """Seriation by the second eigenvector of the Laplacian of the frames' similarity (Atkins et al., 1998)."""
  scale = np.median(distance[distance > 0])
  alike = np.exp(-2 * (distance / scale) ** 2)
  _, vectors = np.linalg.eigh(np.diag(alike.sum(axis=1)) - alike)
  return np.argsort(vectors[:, 1], kind='stable')


def _shortest(distance: Float[np.ndarray, 'N N'], order: Int64[np.ndarray, ' N']) -> Int64[np.ndarray, ' N']:
  """Shortens a path through all frames until no reversal of a part and no move of a single frame makes it shorter."""
  count = len(order)
  first, last = np.triu_indices(count, 1)
  first, last = first + 1, last + 1
  place, gap = np.arange(1, count + 1), np.arange(count + 1)  # gap n is before place n + 1
  for _ in range(10 * count):
    between = np.zeros((count + 2, count + 2))  # zero distance to the padding at both ends
    between[1:-1, 1:-1] = distance[np.ix_(order, order)]
    reversing = between[first - 1, last] + between[first, last + 1]
    reversing -= between[first - 1, first] + between[last, last + 1]
    removing = between[place - 1, place + 1] - between[place - 1, place] - between[place, place + 1]
    moving = removing[:, None] + between[1:-1, :-1] + between[1:-1, 1:] - between[gap, gap + 1]
    moving[place - 1, place - 1] = moving[place - 1, place] = np.inf
    if min(reversing.min(), moving.min()) > -1e-9:
      break
    if reversing.min() <= moving.min():
      n = reversing.argmin()
      part = slice(first[n] - 1, last[n])
      order = np.concatenate([order[: part.start], order[part][::-1], order[part.stop :]])
    else:
      order = _moved(order, *divmod(int(moving.argmin()), count + 1))
  return order


def _moved(order: Int64[np.ndarray, ' N'], place: int, gap: int) -> Int64[np.ndarray, ' N']:
  """Moves the frame at `place` to `gap`, both counted before it is removed."""
  return np.insert(np.delete(order, place), gap - (gap > place), order[place])
