"""Static content of all frames while the scene moves: dust on the sensor, hot pixels, a scale bar or a date drawn into
the images. If it is stronger than the texture of the scene, it pulls the measured motion towards zero.

A frame is modelled as the sum of a moving and a static layer. The static layer is searched where the image hardly
changes from frame to frame, if that is a small part of the image; in a scene without motion it is most of it. It is
accepted if the frames align much better without it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Complex128, Float, Float32
from scipy import ndimage

SURE = 3.0  # a pixel is static if its median over the frames exceeds this many times its variation
CHANGE_PX = 3.0  # standard deviation of the Gaussian over which changes are averaged
MIN_CHANGE = 2e-3  # minimum variation of luminance 0 .. 1, from compression
MAX_SHARE = 0.15  # maximum share of static pixels; more means a scene without motion
BETTER = 0.85  # a pattern is accepted if it reduces squared differences of neighbours to this share
EXPLAINED = 0.2  # no pattern is needed if the motion alone reduces them to this share
MIN_PX = 0.5  # minimum change of the motion by removing the pattern
ROUNDS = 3  # rounds of separating the layers and measuring
SMOOTH_PX = 1.5  # standard deviation of the Gaussian before the scene is compared where there is no pattern
MAX_FRAMES = 16  # maximum number of frames to compute the pattern from, evenly spread over the sweep
GROWN_PX, EDGE_PX = 2, 1.0  # dilation of the static region, and the standard deviation of its soft edge

Picture = Float[np.ndarray, 'h w']


@runtime_checkable
class Motion(Protocol):
  """Motion of images relative to one of them: a point q there lies at scale q + shift; px from the centre, x + i y."""

  scale: Complex128[np.ndarray, 'N']
  shift: Complex128[np.ndarray, 'N']


def find_static_pattern(
  pictures: Sequence[Picture], motion: Motion, measure: Callable[[Sequence[Picture]], Motion]
) -> tuple[Float32[np.ndarray, 'h w'] | None, Motion]:
  """The static pattern, and the motion of the images without it.

  Args:
    pictures: luminance without coarse shading, in the order of the sweep.
    motion: motion of the images as they are; NaN where unknown.
    measure: measures the motion of such images.

  Returns:
    The pattern, 0 where there is none, and the motion without it; or None and the given motion if no pattern was found.
  """
  nothing = None, motion
  if len(pictures) < 3:
    return nothing
  chosen = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), MAX_FRAMES)).round().astype(int)).tolist()
  layers = np.stack([pictures[n] for n in chosen])
  pattern = np.median(layers, 0)
  change = 1.4826 * np.median(np.abs(layers - pattern), 0)
  change = np.sqrt(ndimage.gaussian_filter(change**2, CHANGE_PX)) + MIN_CHANGE
  stands = np.abs(pattern) > SURE * change
  if not 0 < stands.mean() <= MAX_SHARE:
    return nothing
  left_by_none = _mean_squared_difference(pictures, _NoMotion(len(pictures)))
  left = np.nanmin([_mean_squared_difference(pictures, motion), left_by_none])
  if left < EXPLAINED * left_by_none:
    return nothing
  share = _soft_mask(stands)
  without = measure([picture - share * pattern for picture in pictures])
  for _ in range(ROUNDS):
    if np.isfinite(without.scale).sum() < max(2, np.isfinite(motion.scale).sum()):
      return nothing
    if not _largest_distance(without, motion, pictures[0].shape) > MIN_PX:
      return nothing
    if not _mean_squared_difference([picture - share * pattern for picture in pictures], without) < left:
      return nothing
    scene = np.nanmedian([resampled(pictures[n] - share * pattern, without, n) for n in chosen], 0)
    scene = np.nan_to_num(scene)
    pattern = np.median([pictures[n] - resampled(scene, without, n, back=True, outside=0.0) for n in chosen], 0)
    without = measure([picture - share * pattern for picture in pictures])
  if not _mean_squared_difference([picture - share * pattern for picture in pictures], without) < BETTER * left:
    return nothing
  # Where there is no pattern, the scene alone shows which motion is right: texture may look static, too.
  # Smoothed, because interpolation smooths noise by how far it shifts.
  smooth = [ndimage.gaussian_filter(picture - share * pattern, SMOOTH_PX) for picture in pictures]
  elsewhere = [np.where(share > 0, np.nan, picture) for picture in smooth]
  known = np.isfinite(motion.scale)
  if known.sum() > 1 and not (
    _mean_squared_difference(elsewhere, without, known) < _mean_squared_difference(elsewhere, motion, known)
  ):
    return nothing
  return (share * pattern).astype(np.float32), without


def resampled(picture: Picture, motion: Motion, n: int, *, back: bool = False, outside: float = np.nan) -> Picture:
  """Image n resampled to the reference, or with `back` from the reference to image n. NaN motion counts as none."""
  scale, shift = complex(motion.scale[n]), complex(motion.shift[n])
  if not np.isfinite(scale * shift):
    scale, shift = 1 + 0j, 0j
  if back:
    scale, shift = 1 / scale, -shift / scale
  centre = (np.array(picture.shape) - 1) / 2
  matrix = np.array([[scale.real, scale.imag], [-scale.imag, scale.real]])  # of (y, x)
  offset = centre - matrix @ centre + (shift.imag, shift.real)
  return ndimage.affine_transform(picture, matrix, offset, order=1, mode='constant', cval=outside)


class _NoMotion:
  """No motion."""

  def __init__(self, count: int):
    self.scale, self.shift = np.ones(count, complex), np.zeros(count, complex)


def _soft_mask(places: Bool[np.ndarray, 'h w']) -> Picture:
  grown = ndimage.binary_dilation(places, iterations=GROWN_PX).astype(np.float32)
  return np.clip(2 * ndimage.gaussian_filter(grown, EDGE_PX), 0, 1)


def _mean_squared_difference(
  pictures: Sequence[Picture], motion: Motion, chosen: Bool[np.ndarray, 'N'] | None = None
) -> float:
  """Mean squared difference of measured neighbours after alignment; NaN if there are none. `chosen`: the frames to
  compare; None: all.
  """
  measured = np.flatnonzero(np.isfinite(motion.scale) & (True if chosen is None else chosen)).tolist()
  squares, before = [], None
  for n in measured:
    now = resampled(pictures[n], motion, n)
    if before is not None:
      squares.append(np.nanmean((now - before) ** 2) if np.isfinite(now * before).any() else np.nan)
    before = now
  return float(np.nanmean(squares)) if np.isfinite(squares).any() else float('nan')


def _largest_distance(motion: Motion, other: Motion, size: tuple[int, int]) -> float:
  """Largest root-mean-square distance over the frames between two motions, px; unknown motions count as none."""
  scale, shift = (
    np.where(np.isfinite(a), a, none) - np.where(np.isfinite(b), b, none)
    for a, b, none in ((motion.scale, other.scale, 1), (motion.shift, other.shift, 0))
  )
  spread = sum(length**2 for length in size) / 12
  return float(np.sqrt(np.abs(scale) ** 2 * spread + np.abs(shift) ** 2).max())
