"""The order of a sweep from where its frames are sharp: in a sweep that goes one way, every place gets sharp once.

Places are blocks of the frames, which need not be aligned to a fraction of a block. The logarithm of a block's high
frequencies over the frames rises to one peak and falls; `_excess` is how much it goes up and down besides. The order is
the shortest way through the frames, by how much their sharpness differs. Frames that are blurred alike, as the two ends
of a sweep may be, it can confuse: it is to be believed only where something else says the same.
"""

import numpy as np
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from scipy import ndimage

from focal_jax.focus.classical import luminance_on_host

_SIDE_PX, _BLOCK_PX = 512, 16
_SIGMA_PX = 1.5  # of the Gaussian below which frequencies are high
_NOISE = 0.5  # energy of the high frequencies of a place without any, in squared levels of 255
_LEAST_CHANGE = 1.0  # of the logarithm in a block that counts
_FEWEST_FRAMES, _FEWEST_BLOCKS = 5, 48
_OUT_OF_ORDER = 0.3  # by which the excess must fall with another order,
_IN_ORDER = 0.3  # and what it must fall to
_SHARE = 0.05  # of the blocks that are sharpest in a frame: in three frames or more, or both ways of blur look alike


def order_by_sharpness(images: UInt8[np.ndarray, 'N H W 3']) -> list[int] | None:
  """The order in which the frames are a sweep of one way, in either direction, if theirs is none by clear evidence; as
  of a sweep that goes there and back, or shuffled files. None: theirs may be one, or no order is.
  """
  if len(images) < _FEWEST_FRAMES:
    return None
  sharpness = np.stack([_sharpness(image) for image in images])
  sharpness = sharpness[:, np.ptp(sharpness, axis=0) > _LEAST_CHANGE]
  if sharpness.shape[1] < _FEWEST_BLOCKS:
    return None
  given = _excess(sharpness)
  if given < _OUT_OF_ORDER:
    return None
  relative = sharpness - sharpness.mean(axis=0)
  # Equal to the root mean square of the differences of the rows, without all pairs of them in memory.
  squares = (relative**2).sum(axis=1)
  apart = squares[:, None] + squares - 2 * relative @ relative.T
  distance = np.sqrt(np.maximum(apart, 0) / sharpness.shape[1])
  orders = [_shortest(distance, start) for start in (_spectral(distance), np.arange(len(images)))]
  order = min(orders, key=lambda one: distance[one[1:], one[:-1]].sum())
  found = _excess(sharpness[order])
  peaks = np.bincount(sharpness.argmax(axis=0), minlength=len(images)) / sharpness.shape[1]
  if found > _IN_ORDER or given - found < _OUT_OF_ORDER or np.count_nonzero(peaks >= _SHARE) < 3:
    return None
  # Of the two directions that which more of the given order agrees with.
  if np.corrcoef(order, np.arange(len(order)))[0, 1] < 0:
    order = order[::-1]
  return order.tolist()


def _sharpness(image: UInt8[np.ndarray, 'H W 3']) -> Float[np.ndarray, ' K']:
  """Logarithm of the energy of the high frequencies of each block."""
  luma = luminance_on_host(image).astype(np.float32)
  scale = min(1.0, _SIDE_PX / max(luma.shape))
  size = tuple(max(1, round(length * scale)) for length in luma.shape[::-1])
  small = np.asarray(Image.fromarray(luma).resize(size, Image.Resampling.BOX))
  energy = (small - ndimage.gaussian_filter(small, _SIGMA_PX)) ** 2
  rows, columns = (length // _BLOCK_PX for length in energy.shape)
  blocks = energy[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
  return np.log(blocks.mean(axis=(1, 3)).ravel() + _NOISE)


def _excess(sharpness: Float[np.ndarray, 'N K']) -> float:
  """How much the blocks go up and down besides once to their peak, in parts of their whole change: mean over blocks."""
  path = np.abs(np.diff(sharpness, axis=0)).sum(axis=0)
  highest, lowest = sharpness.max(axis=0), sharpness.min(axis=0)
  once = 2 * highest - sharpness[0] - sharpness[-1]
  return float(np.mean((path - once) / (highest - lowest)))


def _spectral(distance: Float[np.ndarray, 'N N']) -> Int64[np.ndarray, ' N']:
  """Seriation by the second eigenvector of the Laplacian of the frames' likeness (Atkins et al., 1998)."""
  scale = np.median(distance[distance > 0])
  alike = np.exp(-2 * (distance / scale) ** 2)
  _, vectors = np.linalg.eigh(np.diag(alike.sum(axis=1)) - alike)
  return np.argsort(vectors[:, 1], kind='stable')


def _shortest(distance: Float[np.ndarray, 'N N'], order: Int64[np.ndarray, ' N']) -> Int64[np.ndarray, ' N']:
  """A way through all frames that no reversal of a part and no move of one frame makes shorter."""
  count = len(order)
  first, last = np.triu_indices(count, 1)
  first, last = first + 1, last + 1
  place, gap = np.arange(1, count + 1), np.arange(count + 1)  # a gap is before the place of the next number
  for _ in range(10 * count):
    between = np.zeros((count + 2, count + 2))  # to beyond the ends it is not far
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
  """With the frame at that place in the gap before another, both counted before it is taken out."""
  return np.insert(np.delete(order, place), gap - (gap > place), order[place])
