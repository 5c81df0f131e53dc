"""Residual motion of a focal stack, measured from its images: alignment quality without ground truth or a network.

A point at q (px from the image centre) in the reference lies at zoom R q + shift in the frame, where R is a rotation.
So the zoom of a frame is the factor by which its content is *larger* than in the reference; its field of view is
narrower by the same factor. Below, zoom and rotation form one complex number, zoom exp(i rotation), and points are x +
i y with y down, so a similarity is scale q + shift.

1. Frames of a sweep differ in blur, neighbours the least: neighbours are compared, and their motions chained.
2. A pair is compared in overlapping windowed blocks by phase correlation (Kuglin and Hines, 1975): symmetric blur
   scales amplitudes and leaves phases. Whitening stops at a noise floor, below which no phase information is left. High
   frequencies are excluded: a disc of radius R reverses their phase from 0.61 / R cycles per px on, and the asymmetric
   part of a real lens's blur shows most there.
3. Blocks that show more than a straight edge vote if their correlation has one distinct peak, weighted in each
   direction by its sharpness. Zoom, rotation and shift are fitted to the votes robustly: RANSAC, then Tukey's biweight.
4. The frame is resampled by the fit and compared again, from coarse to fine, until the correction is small.

With asymmetric blur, position depends on the frequency band: on the stacks `balls` and `balls_aligned` other bands
change the zoom over ten frames by 0.001 to 0.004, more than `zoom_error` suggests. A static pattern in all frames
(dust on the sensor, a scale bar) pulls the motion towards zero if it is as strong as the texture; `static_pattern`
finds it if it does not cover most of the image. It is subtracted, or filled in if it is opaque.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Bool, Complex128, Float, Float32, Float64, UInt8
from PIL import Image
from scipy import ndimage

from focal_jax.align import static_pattern
from focal_jax.align.phase_correlation import NOISE, block_spectra, correlate, peaks, remove_shading
from focal_jax.focus.classical import luminance_on_host

MAX_SIDE = 512  # px; larger frames are reduced to this before they are compared
LEVEL_SIDE = 200  # px; minimum longer side of the coarsest level
BLOCK = 64  # px; half of this on levels whose shorter side is below 3 blocks
TEXTURE = 1.0 / 255  # minimum standard deviation of a block that votes, without coarse shading
MIN_VOTES = 8  # minimum number of agreeing blocks; fewer are a failure
MIN_QUALITY = 0.25  # minimum share of agreeing blocks; less is a failure
GOOD_QUALITY = 0.5  # share of agreeing blocks above which no other starting point is tried
MAX_ERROR = 0.005  # maximum standard error of the zoom; more is a failure
TOLERANCE_PX = 1.0  # maximum deviation of a vote that agrees with a RANSAC hypothesis
HYPOTHESES = 256
SURE_ZOOM = 5.0  # the near end is known if the zoom of the ends differs by this many standard errors
MIN_ZOOM = 0.002  # and by at least this, the effect of the frequency band on the zoom (see above)
BACK_ZOOM = 0.01  # zoom against the direction of the sweep that is reported; at most 0.003 in real sweeps
MIN_ROTATION_PX = 0.05  # rotations that move no pixel farther are ignored: without rotation, resampling is separable
ROUNDS = 4  # maximum number of comparisons, each after resampling
REACH = 3  # number of frames to try as a partner when the neighbour cannot be compared


@dataclasses.dataclass(frozen=True, eq=False)
class ResidualMotion:
  """Motion of each frame relative to the reference, in px of the given frames; NaN if it could not be measured.

  Attributes:
    zoom: magnification relative to the reference, about the image centre; 1 for none.
    shift_px: (x, y) position of the reference's centre in the frame, relative to the frame's centre; right and down are
      positive.
    rotation: rotation of the content, radians, clockwise in the image (from x, right, to y, down).
    quality: share of textured blocks that agree on the motion, 0 .. 1, the minimum along the chain to the reference; 0
      if the motion is NaN, 1 for the reference.
    zoom_error: standard error of the zoom, and of the rotation in radians, from the scatter of the blocks, accumulated
      along the chain.
    reference: index of the frame that the others are compared with.
    size: height and width of the frames, px.
    static_pattern: static content of all frames that was subtracted first, in luminance 0 .. 1, at most `MAX_SIDE` px
      long; NaN where it hides the scene, which was filled in. None: nothing was found, or not searched for.
  """

  zoom: Float64[np.ndarray, 'N']
  shift_px: Float64[np.ndarray, 'N 2']
  rotation: Float64[np.ndarray, 'N']
  quality: Float64[np.ndarray, 'N']
  zoom_error: Float64[np.ndarray, 'N']
  reference: int
  size: tuple[int, int]
  static_pattern: Float32[np.ndarray, 'h w'] | None = None

  @property
  def measured(self) -> Bool[np.ndarray, 'N']:
    """Frames with a measured motion, including the reference."""
    return self.quality > 0

  @property
  def zoom_range(self) -> float:
    """Largest / smallest zoom of the measured frames, >= 1; NaN if only the reference was measured."""
    zoom = self.zoom[self.measured]
    return float(zoom.max() / zoom.min()) if len(zoom) > 1 or len(self.zoom) == 1 else float('nan')

  @property
  def rotation_range(self) -> float:
    """Largest difference in rotation between measured frames, radians; NaN if only the reference was measured."""
    rotation = self.rotation[self.measured]
    return float(np.ptp(rotation)) if len(rotation) > 1 or len(self.rotation) == 1 else float('nan')

  @property
  def displacement_px(self) -> Float64[np.ndarray, 'N']:
    """Root-mean-square displacement over the pixels of each frame, px."""
    # The mean square of a centred coordinate of n pixels is (n^2 - 1) / 12.
    spread = sum(n * n - 1 for n in self.size) / 12
    turned = self.zoom * np.exp(1j * self.rotation) - 1
    return np.sqrt(np.abs(turned) ** 2 * spread + (self.shift_px**2).sum(-1))

  @property
  def rms_px(self) -> float:
    """Root-mean-square displacement over the measured frames except the reference, px. 0 for a single frame; NaN if
    only the reference was measured.
    """
    n = np.count_nonzero(self.measured)
    if n < 2:
      return 0.0 if len(self.zoom) == 1 else float('nan')
    return float(np.sqrt(np.nansum(self.displacement_px**2) / (n - 1)))

  def without_rotation(self) -> 'ResidualMotion':
    """The motion that remains after each frame is rotated back about its centre, as by `motion.rotate_back`.

    With p = R^-1 (position in the frame), a point q of the reference lies at p = zoom q + R^-1 shift.
    """
    shift = (self.shift_px @ np.array([1, 1j])) * np.exp(-1j * self.rotation)
    turned = {'shift_px': np.stack([shift.real, shift.imag], -1), 'rotation': 0 * self.rotation}
    return dataclasses.replace(self, **turned)

  def near_end(self) -> Literal['first', 'last'] | None:
    """The end of the sweep that is focused nearer: the one with larger content, because a breathing lens extends as it
    focuses near. None if the zoom over the sweep is within its error, as in stacks that do not breathe or are
    corrected.
    """
    ends = np.flatnonzero(self.measured)[[0, -1]]
    growth = float(np.log(self.zoom[ends[1]] / self.zoom[ends[0]]))
    if abs(growth) <= max(SURE_ZOOM * self.zoom_error[ends].max(), MIN_ZOOM):
      return None
    return 'last' if growth > 0 else 'first'

  @property
  def back_zoom(self) -> float:
    """How far the zoom goes back, natural logarithm: the smaller of how much content grows over one part of the sweep
    and how much it shrinks over another.
    """
    zoom = np.log(self.zoom[self.measured])
    growth = np.triu(zoom - zoom[:, None])  # from each frame to each later one
    return float(min(growth.max(), -growth.min()))

  def zooms_both_ways(self, least: float = BACK_ZOOM) -> bool:
    """Whether the zoom goes back by more than `least` and its error; by default by much more than in a sweep in one
    direction. Then the sweep goes back and forth, or its frames are out of order.
    """
    return self.back_zoom > max(least, SURE_ZOOM * float(self.zoom_error[self.measured].max()))


class _Similarity(NamedTuple):
  """Maps a point q to scale q + shift; all complex, px from the centre."""

  scale: complex
  shift: complex

  def after(self, other: '_Similarity') -> '_Similarity':
    """This similarity applied after the other one."""
    return _Similarity(self.scale * other.scale, self.scale * other.shift + self.shift)


class _Pair(NamedTuple):
  """Motion of one image relative to another."""

  motion: _Similarity
  quality: float
  zoom_error: float


_IDENTITY = _Similarity(1.0 + 0j, 0j)
_FAILED = _Pair(_Similarity(complex(np.nan, np.nan), complex(np.nan, np.nan)), 0.0, np.nan)


class _Motions(NamedTuple):
  """Motion of each image relative to the reference, px from the centre."""

  pairs: list[_Pair]
  reference: int

  @property
  def scale(self) -> Complex128[np.ndarray, 'N']:
    return np.array([pair.motion.scale for pair in self.pairs])

  @property
  def shift(self) -> Complex128[np.ndarray, 'N']:
    return np.array([pair.motion.shift for pair in self.pairs])


def residual_motion(
  frames: UInt8[np.ndarray, 'N H W 3'] | Float[np.ndarray, 'N H W 3'],
  reference: int = -1,
  *,
  elsewhere: bool = False,
  find_static_pattern: bool = False,
  static_pattern_in: Sequence[Float[np.ndarray, 'h w']] | None = None,
) -> ResidualMotion:
  """Zoom, shift and rotation of every frame relative to frame `reference`. Deterministic.

  In synthetic images, up to 15 % zoom, a shift of 10 % of the longer side and 3 degrees of rotation between neighbours
  were found. A frame is NaN with quality 0 if no chain of comparable neighbours, at most `REACH` apart, connects it to
  the reference; without texture this holds for all other frames.

  Args:
    frames: RGB, uint8 or float 0 .. 1, in the order of the sweep, in either direction. A border left black by a warp
      counts as image, but straight edges do not vote.
    reference: index of the reference, from the end if negative; by default the last, as in `warp`.
    elsewhere: if fewer than half of the other frames are comparable with the reference, use another one: the last of
      those comparable with most frames. Black frames and frames of another scene are never chosen.
    find_static_pattern: find static content of all frames and subtract it (`ResidualMotion.static_pattern`).
    static_pattern_in: static content to subtract from frames that were aligned afterwards, as it appears in each of
      them, in the size of `ResidualMotion.static_pattern`.

  Raises:
    IndexError: no such frame.
  """
  count, height, width = frames.shape[:3]
  reference = range(count)[reference]
  pictures = [_luminance(frame) for frame in frames]
  small = pictures[0].shape

  def measure(pictures: Sequence[Float[np.ndarray, 'h w']]) -> _Motions:
    return _measure(pictures, reference, elsewhere)

  pattern = None
  if static_pattern_in is not None:
    pictures = static_pattern.without_static_pattern(pictures, static_pattern_in)
  found = measure(pictures)
  if find_static_pattern:
    pattern, found = static_pattern.find_static_pattern(pictures, found, measure)
  return ResidualMotion(
    zoom=np.abs(found.scale),
    shift_px=np.stack([found.shift.real * width / small[1], found.shift.imag * height / small[0]], -1),
    rotation=np.angle(found.scale),
    quality=np.array([pair.quality for pair in found.pairs]),
    zoom_error=np.array([pair.zoom_error for pair in found.pairs]),
    reference=found.reference,
    size=(height, width),
    static_pattern=pattern,
  )


def _measure(pictures: Sequence[Float[np.ndarray, 'h w']], reference: int, elsewhere: bool) -> _Motions:
  count = len(pictures)

  @functools.lru_cache(maxsize=2 * REACH + 2)  # only those of neighbouring frames are needed at once
  def pyramid(n: int) -> list[Float[np.ndarray, '_ _']]:
    return _pyramid(pictures[n])

  @functools.cache
  def compare(n: int, base: int) -> _Pair:
    return _compare(pyramid(n), pyramid(base))

  pairs = _pairs_with(reference, count, compare)
  if elsewhere:
    for other in sorted(set(range(count)) - {reference}, reverse=True):
      if 2 * (_count_measured(pairs) - 1) >= count - 1:
        break
      found = _pairs_with(other, count, compare)
      if _count_measured(found) > _count_measured(pairs):
        reference, pairs = other, found
  return _Motions(pairs, reference)


def _pairs_with(reference: int, count: int, compare: Callable[[int, int], _Pair]) -> list[_Pair]:
  """Motion of each frame relative to the reference, chained over neighbours."""
  pairs = [_FAILED] * count
  pairs[reference] = _Pair(_IDENTITY, 1.0, 0.0)
  for step, frames_in_turn in ((1, range(reference + 1, count)), (-1, range(reference - 1, -1, -1))):
    for n in frames_in_turn:
      for base in [n - step * k for k in range(1, min(REACH, abs(n - reference)) + 1)]:
        if pairs[base].quality > 0:
          pairs[n] = _chain(compare(n, base), pairs[base])
        if pairs[n].quality > 0:
          break
  return pairs


def _count_measured(pairs: list[_Pair]) -> int:
  return sum(bool(pair.quality > 0) for pair in pairs)


def _chain(pair: _Pair, base: _Pair) -> _Pair:
  """Motion relative to the reference of a frame with motion `pair` relative to a frame with motion `base`."""
  return _Pair(
    pair.motion.after(base.motion),
    min(pair.quality, base.quality),
    float(np.hypot(pair.zoom_error, base.zoom_error)),
  )


def _luminance(frame: UInt8[np.ndarray, 'H W 3'] | Float[np.ndarray, 'H W 3']) -> Float[np.ndarray, 'h w']:
  """Luminance 0 .. 1, with a longer side of at most `MAX_SIDE`."""
  luma = luminance_on_host(frame)
  if frame.dtype == np.uint8:
    luma /= 255
  scale = MAX_SIDE / max(luma.shape)
  return (
    luma if scale >= 1 else _resize(luma, max(1, round(luma.shape[0] * scale)), max(1, round(luma.shape[1] * scale)))
  )


def _resize(picture: Float[np.ndarray, 'H W'], height: int, width: int) -> Float[np.ndarray, 'h w']:
  return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def _pyramid(picture: Float[np.ndarray, 'H W']) -> list[Float[np.ndarray, '_ _']]:
  """The image at successive half sizes, coarsest first, without coarse shading."""
  levels = [picture]
  while max(picture.shape) // 2 >= LEVEL_SIDE and min(picture.shape) // 2 >= BLOCK:
    picture = _resize(picture, picture.shape[0] // 2, picture.shape[1] // 2)
    levels.append(picture)
  return [remove_shading(level) for level in reversed(levels)]


def _compare(moving: list[Float[np.ndarray, '_ _']], fixed: list[Float[np.ndarray, '_ _']]) -> _Pair:
  """Motion of `moving` relative to `fixed`, in px of the finest level of their pyramids."""
  pair = _refine(moving[0], fixed[0], _IDENTITY)
  if pair.quality < GOOD_QUALITY:  # Perhaps a shift larger than the blocks can find.
    shifted = _refine(moving[0], fixed[0], _integer_shift(moving[0], fixed[0]))
    pair = max(pair, shifted, key=lambda pair: pair.quality)
  for before, a, b in zip(fixed, moving[1:], fixed[1:], strict=False):
    if pair.quality == 0:
      return _FAILED
    shift = pair.motion.shift
    shift = complex(shift.real * b.shape[1] / before.shape[1], shift.imag * b.shape[0] / before.shape[0])
    start = pair.motion._replace(shift=shift)
    finer = _refine(a, b, start)
    # With strong blur only the coarser level has usable phases.
    pair = finer if finer.quality >= min(pair.quality, GOOD_QUALITY) else pair._replace(motion=start)
  usable = pair.quality >= MIN_QUALITY and pair.zoom_error <= MAX_ERROR
  return pair if usable else _FAILED


def _refine(moving: Float[np.ndarray, 'H W'], fixed: Float[np.ndarray, 'H W'], motion: _Similarity) -> _Pair:
  """Compares and resamples in turn, until the correction is below 0.01 px everywhere."""
  if min(fixed.shape) < BLOCK // 2:
    return _FAILED
  block = BLOCK if min(fixed.shape) >= 3 * BLOCK else BLOCK // 2
  centre = (np.array(fixed.shape) - 1) / 2
  spectra, texture, grid = block_spectra(fixed, block)
  coefficients = ndimage.spline_filter(moving, order=3, mode='mirror', output=np.float32)
  pair = _FAILED
  for _ in range(ROUNDS):
    if abs(motion.scale.imag) * np.hypot(*centre) < MIN_ROTATION_PX:
      motion = motion._replace(scale=complex(motion.scale.real))
    a, b = motion.scale.real, motion.scale.imag
    turn = np.array([[a, b], [-b, a]])  # of (y, x)
    shift = np.array([motion.shift.imag, motion.shift.real])
    warped = ndimage.affine_transform(
      coefficients,
      turn if b else [a, a],
      centre - turn @ centre + shift,
      mode='mirror',
      prefilter=False,
      output=np.float32,
    )
    warped_spectra, warped_texture, _ = block_spectra(warped, block)
    # A block may extend beyond the frame where its window is close to 0.
    reach = np.abs((grid + block / 2 - 0.5 - centre) @ turn.T + shift) + block * (0.5 - 1 / 16)
    voters = (reach <= centre + 0.5).all(-1) & (np.minimum(texture, warped_texture) >= TEXTURE)
    if np.count_nonzero(voters) < MIN_VOTES:
      return _FAILED
    found, information, clear = peaks(warped_spectra[voters], spectra[voters], block)
    places = (grid[voters] + block / 2 - 0.5 - centre)[:, ::-1]
    if np.count_nonzero(clear) < MIN_VOTES:
      return _FAILED
    correction, agree, error = _fit(places[clear], found[clear], information[clear])
    if agree < MIN_VOTES:
      return _FAILED
    # `correction` is the remaining motion of the frame resampled by `motion`: apply `motion` after it.
    motion = motion.after(correction)
    pair = _Pair(motion, agree / np.count_nonzero(voters), error)
    if abs(correction.scale - 1) * max(centre) + abs(correction.shift) < 0.01:
      break
  return pair


def _integer_shift(moving: Float[np.ndarray, 'H W'], fixed: Float[np.ndarray, 'H W']) -> _Similarity:
  """Shift in whole pixels, from the images as one block."""
  window = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in fixed.shape))
  a, b = (scipy.fft.rfft2(picture * window) for picture in (moving, fixed))
  surface = correlate(a, b, fixed.shape, NOISE**2 * float((window**2).sum()))
  top = np.array(np.unravel_index(surface.argmax(), surface.shape))
  y, x = np.where(top > np.array(surface.shape) // 2, top - surface.shape, top)
  return _IDENTITY._replace(shift=complex(x, y))


def _fit(
  places: Float64[np.ndarray, 'K 2'], found: Float64[np.ndarray, 'K 2'], information: Float64[np.ndarray, 'K 2 2']
) -> tuple[_Similarity, int, float]:
  """Motion fitted to blocks at `places` that moved by `found`, the number of blocks that agree, and the zoom's standard
  error.
  """
  rng = np.random.default_rng(0)
  first, second = rng.integers(len(places), size=(2, HYPOTHESES))
  at, moved = (xy @ np.array([1, 1j]) for xy in (places, found))
  apart = at[first] - at[second]
  square = np.abs(apart) ** 2
  growth = apart.conj() * (moved[first] - moved[second]) / np.where(square > 0, square, 1)  # 0 for a block with itself
  shift = (moved[first] + moved[second]) / 2 - growth * (at[first] + at[second]) / 2
  miss = moved - growth[:, None] * at - shift[:, None]
  best = (np.abs(miss) < TOLERANCE_PX).sum(1).argmax()
  params = np.array([growth[best].real, growth[best].imag, shift[best].real, shift[best].imag])

  # [K, 2, 4]: displacement of a block by growth, rotation and shift.
  turned = places[:, ::-1] * (-1, 1)
  design = np.concatenate([places[..., None], turned[..., None], np.broadcast_to(np.eye(2), (len(places), 2, 2))], -1)
  weighted = np.einsum('kji,kjl->kil', design, information)
  weight = np.zeros(len(places))
  for _ in range(10):
    distance = np.sqrt(((found - design @ params) ** 2).sum(-1))
    near = distance < TOLERANCE_PX
    scale = max(1.4826 * np.median(distance[near]) if near.any() else TOLERANCE_PX, 1e-3)
    weight = np.maximum(1 - (distance / (4.685 * scale)) ** 2, 0) ** 2
    normal = np.einsum('k,kil,klm->im', weight, weighted, design)
    params, last = np.linalg.lstsq(normal, np.einsum('k,kil,kl->i', weight, weighted, found), rcond=1e-10)[0], params
    if np.abs(params - last)[2:].max() < 1e-5 and np.abs(params - last)[:2].max() < 1e-8:
      break
  miss = found - design @ params
  agree = int(np.count_nonzero((miss**2).sum(-1) < TOLERANCE_PX**2))
  # Sandwich estimator: needs no model of the votes' noise.
  influence = np.einsum('k,kil,kl->ki', weight, weighted, miss)
  inverse = np.linalg.pinv(normal)
  error = float(np.sqrt((inverse @ (influence.T @ influence) @ inverse)[0, 0]))
  return _Similarity(complex(1 + params[0], params[1]), complex(*params[2:])), agree, error
