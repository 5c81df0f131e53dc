"""Static content of all frames while the scene moves: dust on the sensor, hot pixels, a scale bar or a date drawn into
the images, a watermark, a black border, the round aperture of an endoscope. If it is stronger than the texture of the
scene, it pulls the measured motion towards zero.

Opaque content hides the scene: its pixels are equal in all frames. They are no evidence of motion, nor are their edges,
so they are filled in from their surroundings in each frame. Other content is modelled as a static layer that is added
to the moving one. It is searched where the image hardly changes from frame to frame, if that is not most of the image,
as in a scene without motion. Both are accepted if the rest of the frames aligns better without them.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Complex128, Float32
from scipy import ndimage

from focal_jax.align.opaque_pattern import Picture, fill_opaque, find_opaque, median_and_variation
from focal_jax.align.phase_correlation import remove_shading

SURE = 3.0  # a pixel is static if its median over the frames exceeds this many times its variation
CHANGE_PX = 3.0  # standard deviation of the Gaussian over which changes are averaged
MIN_CHANGE = 2e-3  # minimum variation of luminance 0 .. 1, from compression
MAX_SHARE = 0.6  # maximum share of static pixels; more means a scene without motion
BETTER = 0.85  # a pattern is accepted if squared differences of neighbours without it are less than this share
PROMISING = 0.92  # the search goes on while it reduces them to less than this share
EXPLAINED = 0.1  # no pattern is needed if the motion alone reduces them to this share
MIN_PX = 0.5  # minimum change of the motion by removing the pattern
ROUNDS = 6  # maximum number of rounds of separating the layers and measuring
DONE_PX = 0.1  # no further round is needed if the motion changed by less
SMOOTH_PX = 1.5  # standard deviation of the Gaussian before the scene is compared where there is no pattern
MAX_FRAMES = 16  # maximum number of frames to compute the pattern from, evenly spread over the sweep
GROWN_PX, EDGE_PX = 2, 1.0  # dilation of the static region, and the standard deviation of its soft edge


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
    pictures: luminance 0 .. 1, in the order of the sweep.
    motion: motion of the images as they are; NaN where unknown.
    measure: measures the motion of such images.

  Returns:
    The pattern without coarse shading, 0 where there is none and NaN where it hides the scene, and the motion without
    it; or None and the given motion if no pattern was found.
  """
  if len(pictures) < 3:
    return None, motion
  flat = [remove_shading(picture) for picture in pictures]
  left, is_explained = _left_by(motion, flat)
  if is_explained:
    return None, motion
  chosen = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), MAX_FRAMES)).round().astype(int)).tolist()
  start = _stands([flat[n] for n in chosen])
  hidden = find_opaque(np.stack([pictures[n] for n in chosen]), start[1])
  if hidden.any():
    filled = fill_opaque(pictures, hidden)
    without = measure(filled)
    if _differs(without, motion, hidden.shape) and _fits_better(filled, hidden, without, motion):
      flat, motion = [remove_shading(picture) for picture in filled], without
      left, is_explained = _left_by(motion, flat)
      start = _stands([flat[n] for n in chosen])
    else:
      hidden = np.zeros_like(hidden)
  pattern = None
  if not is_explained:
    pattern, motion = _find_added(flat, chosen, start, left, motion, measure)
  if hidden.any():
    pattern = np.zeros(hidden.shape, np.float32) if pattern is None else pattern
    pattern[hidden] = np.nan
  return pattern, motion


def without_static_pattern(pictures: Sequence[Picture], patterns: Sequence[Picture]) -> list[Picture]:
  """The pictures without the patterns of `find_static_pattern`, one for each."""
  return [
    picture - pattern
    if np.isfinite(pattern).all()
    else fill_opaque([picture - np.nan_to_num(pattern)], np.isnan(pattern))[0]
    for picture, pattern in zip(pictures, patterns, strict=True)
  ]


def _find_added(
  pictures: Sequence[Picture],
  chosen: list[int],
  start: tuple[Picture, Bool[np.ndarray, 'h w']],
  left: float,
  motion: Motion,
  measure: Callable[[Sequence[Picture]], Motion],
) -> tuple[Float32[np.ndarray, 'h w'] | None, Motion]:
  """`find_static_pattern` for content that is added to the scene.

  Args:
    pictures: without coarse shading.
    chosen: indices of those that the pattern is computed from.
    start: `_stands` of these.
    left: `_left_by` the motion.
    motion, measure: as in `find_static_pattern`.
  """
  nothing = None, motion
  pattern, stands = start
  if not 0 < stands.mean() <= MAX_SHARE:
    return nothing
  share = _soft_mask(stands)
  without = measure([picture - share * pattern for picture in pictures])
  for _ in range(ROUNDS):
    if not _differs(without, motion, share.shape):
      return nothing
    if not _mean_squared_difference([picture - share * pattern for picture in pictures], without) < PROMISING * left:
      return nothing
    scene = np.nanmedian([resampled(pictures[n] - share * pattern, without, n) for n in chosen], 0)
    scene = np.nan_to_num(scene)
    pattern = np.median([pictures[n] - resampled(scene, without, n, back=True, outside=0.0) for n in chosen], 0)
    last, without = without, measure([picture - share * pattern for picture in pictures])
    if _largest_distance(without, last, share.shape) < DONE_PX:
      break
  rest = [picture - share * pattern for picture in pictures]
  if not _mean_squared_difference(rest, without) < BETTER * left:
    return nothing
  if not _fits_better(rest, share > 0, without, motion):
    return nothing
  return (share * pattern).astype(np.float32), without


def _left_by(motion: Motion, pictures: Sequence[Picture]) -> tuple[float, bool]:
  """Mean squared difference of neighbours that the motion, or none if that is less, leaves; and whether that is so
  little that no pattern is needed.
  """
  left_by_none = _mean_squared_difference(pictures, _NoMotion(len(pictures)))
  left = float(np.nanmin([_mean_squared_difference(pictures, motion), left_by_none]))
  return left, left < EXPLAINED * left_by_none


def _stands(pictures: Sequence[Picture]) -> tuple[Picture, Bool[np.ndarray, 'h w']]:
  """The median over pictures without coarse shading, and where it is much stronger than its variation."""
  pattern, change = median_and_variation(np.stack(pictures))
  change = np.sqrt(ndimage.gaussian_filter(change**2, CHANGE_PX)) + MIN_CHANGE
  return pattern, np.abs(pattern) > SURE * change


def _differs(motion: Motion, other: Motion, size: tuple[int, int]) -> bool:
  """Whether a motion differs from the other and is known of as many frames."""
  known, before = (np.isfinite(one.scale).sum() for one in (motion, other))
  return bool(known >= max(2, before) and _largest_distance(motion, other, size) > MIN_PX)


def _fits_better(pictures: Sequence[Picture], where: Bool[np.ndarray, 'h w'], motion: Motion, other: Motion) -> bool:
  """Whether a motion reduces squared differences of the scene elsewhere to less than `BETTER` of those by the other.

  The scene alone shows which motion is right where there is no pattern: texture may look static, too. Smoothed, because
  interpolation smooths noise by how far it shifts.
  """
  elsewhere = [np.where(where, np.nan, ndimage.gaussian_filter(picture, SMOOTH_PX)) for picture in pictures]
  known = np.isfinite(other.scale)
  return known.sum() <= 1 or bool(
    _mean_squared_difference(elsewhere, motion, known) < BETTER * _mean_squared_difference(elsewhere, other, known)
  )


def shows(pattern: Picture, least: float = MIN_CHANGE) -> Bool[np.ndarray, 'h w']:
  """Where a pattern changes luminance by more than `least` or hides the scene."""
  return ~(np.abs(pattern) <= least)


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
