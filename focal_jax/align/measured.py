"""Residual motion of a focal stack, measured from its pictures: alignment quality without truth, and without a network.

A point at q (px from the image centre) in the reference lies at zoom q + shift in the frame. So the zoom of a frame is
the factor by which its content is *larger* than in the reference, and its field of view is narrower by as much.

1. Frames of a sweep are blurred differently, neighbours least so: neighbours are compared, and the motions chained.
2. A pair is compared in overlapping windowed blocks by phase correlation (Kuglin and Hines, 1975): blur that is
   symmetric scales amplitudes and leaves phases. Whitening stops at a noise floor, below which nothing is left of them.
   High frequencies are left out: a disc of radius R reverses their phase from 0.61 / R cycles per px on, and there what
   a real lens adds that is not symmetric shows most.
3. Blocks that show more than a straight edge vote where one peak stands out, for each direction by its sharpness.
   Zoom and shift are fitted to the votes robustly: RANSAC, then Tukey's biweight.
4. The frame is resampled by the fit and compared again, from coarse to fine, until the correction is small.

Where blur is not symmetric, position itself depends on the band of frequencies: on the stacks `balls` and
`balls_aligned` other bands change the zoom over ten frames by 0.001 to 0.004, more than `zoom_error` says. A pattern
that stands still in all frames (sensor, compression) draws the motion towards none if it is as strong as the texture.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Bool, Complex, Float, Float64, Int, UInt8
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy import ndimage

from focal_jax.focus.classical import LUMA

MAX_SIDE = 512  # px; larger frames are shrunk to it before they are compared
LEVEL_SIDE = 200  # px; the coarsest level is the last whose longer side is at least this
BLOCK = 64  # px; half of it on levels whose shorter side is below 3 blocks
NOISE = 1.5 / 255  # standard deviation of a pixel's noise, of luminance 0 .. 1
TEXTURE = 1.0 / 255  # least standard deviation of a block that votes, coarse shading taken off
SHADING_PX = 8.0  # standard deviation of the Gaussian that is taken off as coarse shading
BAND = 0.06  # cycles per px; frequencies are weighted by a Gaussian of this standard deviation
PEAK = 0.2  # least height of a peak that votes, 1 for equal phases
PEAK_RATIO = 1.4  # least height of it over the second peak's,
PEAK_PX = 10  # which is looked for beyond this distance
EDGE = 0.03  # least mean square gradient of a block in one direction over that in another
MIN_VOTES = 8  # fewer agreeing blocks are a failure
MIN_QUALITY = 0.25  # and so is a smaller share of agreeing blocks,
GOOD_QUALITY = 0.5  # at least this is not looked for elsewhere
MAX_ERROR = 0.005  # and so is a larger standard error of the zoom
TOLERANCE_PX = 1.0  # of a vote that agrees with a RANSAC hypothesis
HYPOTHESES = 256
ROUNDS = 4  # of comparing and resampling, at most
REACH = 3  # frames: how far to look for a partner when the neighbour cannot be compared


@dataclasses.dataclass(frozen=True, eq=False)
class ResidualMotion:
  """Motion of each frame relative to the reference, in px of the given frames; NaN where it could not be measured.

  Attributes:
    zoom: factor by which content is larger than in the reference, about the image centre; 1 for none.
    shift_px: (x, y): where the reference's centre lies in the frame, from its centre; right and down are positive.
    quality: share of textured blocks that agree on the motion, 0 .. 1, the least along the chain to the reference; 0
      where the motion is NaN, 1 for the reference.
    zoom_error: standard error of the zoom, from the scatter of the blocks and the length of the chain.
    size: height and width of the frames, px.
  """

  zoom: Float64[np.ndarray, 'N']
  shift_px: Float64[np.ndarray, 'N 2']
  quality: Float64[np.ndarray, 'N']
  zoom_error: Float64[np.ndarray, 'N']
  size: tuple[int, int]

  @property
  def measured(self) -> Bool[np.ndarray, 'N']:
    """Frames whose motion could be measured, the reference included."""
    return self.quality > 0

  @property
  def zoom_range(self) -> float:
    """Largest / smallest zoom of the measured frames, >= 1; NaN if there is none beside the reference."""
    zoom = self.zoom[self.measured]
    return float(zoom.max() / zoom.min()) if len(zoom) > 1 or len(self.zoom) == 1 else float('nan')

  @property
  def displacement_px(self) -> Float64[np.ndarray, 'N']:
    """Root mean square displacement over the pixels of each frame."""
    # The mean square of a centred coordinate of n pixels is (n^2 - 1) / 12.
    spread = sum(n * n - 1 for n in self.size) / 12
    return np.sqrt((self.zoom - 1) ** 2 * spread + (self.shift_px**2).sum(-1))

  @property
  def rms_px(self) -> float:
    """Root mean square displacement over the measured frames, without the reference unless it is alone; else NaN."""
    n = np.count_nonzero(self.measured)
    if n < 2:
      return 0.0 if len(self.zoom) == 1 else float('nan')
    return float(np.sqrt(np.nansum(self.displacement_px**2) / (n - 1)))


class _Pair(NamedTuple):
  """Motion (zoom, x, y) of one picture relative to another."""

  motion: Float64[np.ndarray, '3']
  quality: float
  zoom_error: float


_FAILED = _Pair(np.full(3, np.nan), 0.0, np.nan)


def residual_motion(
  frames: UInt8[np.ndarray, 'N H W 3'] | Float[np.ndarray, 'N H W 3'], reference: int = -1
) -> ResidualMotion:
  """Zoom and shift of every frame relative to frame `reference`. Deterministic.

  Between neighbours up to 15 % of zoom and 10 % of the longer side of shift were found in synthetic pictures. A frame
  that no chain of comparable neighbours, at most `REACH` apart, connects to the reference is NaN with quality 0, and so
  are all others in a stack without texture.

  Args:
    frames: RGB, uint8 or float 0 .. 1, in the order of the sweep, either way. A border that a warp
      left black counts as picture, but straight edges do not vote.
    reference: index of the reference, from the end if negative; by default the last, as in `warp`.

  Raises:
    IndexError: there is no such frame.
  """
  count, height, width = frames.shape[:3]
  reference = range(count)[reference]
  pyramids = [_pyramid(_luminance(frame)) for frame in frames]
  small = pyramids[0][-1].shape
  pairs = [_FAILED] * count
  pairs[reference] = _Pair(np.array([1.0, 0.0, 0.0]), 1.0, 0.0)
  for step, frames_in_turn in ((1, range(reference + 1, count)), (-1, range(reference - 1, -1, -1))):
    for n in frames_in_turn:
      for base in [n - step * k for k in range(1, min(REACH, abs(n - reference)) + 1)]:
        if pairs[base].quality > 0:
          pairs[n] = _chain(_compare(pyramids[n], pyramids[base]), pairs[base])
        if pairs[n].quality > 0:
          break
  motion = np.stack([pair.motion for pair in pairs])
  return ResidualMotion(
    zoom=motion[:, 0],
    shift_px=motion[:, 1:] * (width / small[1], height / small[0]),
    quality=np.array([pair.quality for pair in pairs]),
    zoom_error=np.array([pair.zoom_error for pair in pairs]),
    size=(height, width),
  )


def _chain(pair: _Pair, base: _Pair) -> _Pair:
  """Motion relative to the reference, of a frame whose motion `pair` is relative to one that has moved by `base`."""
  (zoom, *shift), (base_zoom, *base_shift) = pair.motion, base.motion
  return _Pair(
    np.array([zoom * base_zoom, *(zoom * np.array(base_shift) + shift)]),
    min(pair.quality, base.quality),
    float(np.hypot(pair.zoom_error, base.zoom_error)),
  )


def _luminance(frame: UInt8[np.ndarray, 'H W 3'] | Float[np.ndarray, 'H W 3']) -> Float[np.ndarray, 'h w']:
  """Luminance 0 .. 1, the longer side at most `MAX_SIDE`."""
  luma = frame.astype(np.float32) @ np.array(LUMA, np.float32)
  if frame.dtype == np.uint8:
    luma /= 255
  scale = MAX_SIDE / max(luma.shape)
  return (
    luma if scale >= 1 else _resize(luma, max(1, round(luma.shape[0] * scale)), max(1, round(luma.shape[1] * scale)))
  )


def _resize(picture: Float[np.ndarray, 'H W'], height: int, width: int) -> Float[np.ndarray, 'h w']:
  return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def _pyramid(picture: Float[np.ndarray, 'H W']) -> list[Float[np.ndarray, '_ _']]:
  """The picture at halving sizes, coarsest first, coarse shading taken off."""
  levels = [picture]
  while max(picture.shape) // 2 >= LEVEL_SIDE and min(picture.shape) // 2 >= BLOCK:
    picture = _resize(picture, picture.shape[0] // 2, picture.shape[1] // 2)
    levels.append(picture)
  return [level - ndimage.gaussian_filter(level, SHADING_PX, mode='nearest') for level in reversed(levels)]


def _compare(moving: list[Float[np.ndarray, '_ _']], fixed: list[Float[np.ndarray, '_ _']]) -> _Pair:
  """Motion of `moving` relative to `fixed`, in px of the finest level of their pyramids."""
  still = np.array([1.0, 0.0, 0.0])
  pair = _refine(moving[0], fixed[0], still)
  if pair.quality < GOOD_QUALITY:  # Perhaps out of the blocks' reach.
    shifted = _refine(moving[0], fixed[0], _whole_shift(moving[0], fixed[0]))
    pair = max(pair, shifted, key=lambda pair: pair.quality)
  for before, a, b in zip(fixed, moving[1:], fixed[1:], strict=False):
    if pair.quality == 0:
      return _FAILED
    start = pair.motion * (1.0, b.shape[1] / before.shape[1], b.shape[0] / before.shape[0])
    finer = _refine(a, b, start)
    # Under strong blur only the coarser level has phases to compare.
    pair = finer if finer.quality >= min(pair.quality, GOOD_QUALITY) else pair._replace(motion=start)
  usable = pair.quality >= MIN_QUALITY and pair.zoom_error <= MAX_ERROR
  return pair if usable else _FAILED


def _refine(
  moving: Float[np.ndarray, 'H W'], fixed: Float[np.ndarray, 'H W'], motion: Float64[np.ndarray, '3']
) -> _Pair:
  """Compares, resamples and compares again, until the correction is below 0.01 px everywhere."""
  if min(fixed.shape) < BLOCK // 2:
    return _FAILED
  block = BLOCK if min(fixed.shape) >= 3 * BLOCK else BLOCK // 2
  centre = (np.array(fixed.shape) - 1) / 2
  spectra, texture, grid = _block_spectra(fixed, block)
  coefficients = ndimage.spline_filter(moving, order=3, mode='mirror', output=np.float32)
  pair = _FAILED
  for _ in range(ROUNDS):
    zoom, shift = motion[0], motion[:0:-1]
    warped = ndimage.affine_transform(
      coefficients, [zoom, zoom], centre * (1 - zoom) + shift, mode='mirror', prefilter=False, output=np.float32
    )
    warped_spectra, warped_texture, _ = _block_spectra(warped, block)
    # A block may stick out of the frame as far as its window is near 0.
    reach = np.abs((grid + block / 2 - 0.5 - centre) * zoom + shift) + block * (0.5 - 1 / 16)
    voters = (reach <= centre + 0.5).all(-1) & (np.minimum(texture, warped_texture) >= TEXTURE)
    if np.count_nonzero(voters) < MIN_VOTES:
      return _FAILED
    found, information, clear = _peaks(warped_spectra[voters], spectra[voters], block)
    places = (grid[voters] + block / 2 - 0.5 - centre)[:, ::-1]
    if np.count_nonzero(clear) < MIN_VOTES:
      return _FAILED
    correction, agree, error = _fit(places[clear], found[clear], information[clear])
    if agree < MIN_VOTES:
      return _FAILED
    # The frame, already resampled by `motion`, has moved by `correction` still: first the one, then the other.
    motion = np.array([zoom * correction[0], *(zoom * correction[1:] + motion[1:])])
    pair = _Pair(motion, agree / np.count_nonzero(voters), error)
    if abs(correction[0] - 1) * max(centre) + np.abs(correction[1:]).max() < 0.01:
      break
  return pair


@functools.cache
def _window(block: int) -> Float[np.ndarray, 'B B']:
  hann = np.sin(np.pi * (np.arange(block) + 0.5) / block) ** 2
  return np.outer(hann, hann).astype(np.float32)


@functools.cache
def _band(height: int, width: int) -> Float[np.ndarray, 'H F']:
  """Weights of the frequencies of `rfft2`, such that a peak of equal phases is 1 high after `irfft2`."""
  fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
  low = 1 - np.exp(-((fy * height) ** 2 + (fx * width) ** 2) / (2 * 1.5**2))  # the window leaks over its neighbours
  band = low * np.exp(-(fx**2 + fy**2) / (2 * BAND**2))
  return (band / scipy.fft.irfft2(band, (height, width))[0, 0]).astype(np.float32)


def _block_spectra(
  picture: Float[np.ndarray, 'H W'], block: int
) -> tuple[Complex[np.ndarray, 'K B F'], Float[np.ndarray, 'K'], Int[np.ndarray, 'K 2']]:
  """Spectrum, standard deviation (0 for a straight edge) and top left corner (y, x) of every windowed block."""
  window = _window(block)
  # Evenly spread, about half a block apart, up to both borders.
  tops, lefts = (
    np.unique(np.linspace(0, n - block, max(1, round((n - block) / (block / 2))) + 1).round().astype(int))
    for n in picture.shape
  )

  def cut(x):
    return sliding_window_view(x, (block, block))[tops[:, None], lefts].reshape(-1, block, block)

  blocks = cut(picture)
  mean = np.einsum('kyx,yx->k', blocks, window) / window.sum()
  blocks = (blocks - mean[:, None, None]) * window
  texture = np.sqrt((blocks**2).sum((1, 2)) / (window**2).sum())
  # Of a straight edge the window alone makes a peak out of a ridge, at no motion along it.
  gy, gx = np.gradient(picture)
  xx, yy, xy = (np.einsum('kyx,yx->k', cut(product), window) for product in (gx * gx, gy * gy, gx * gy))
  texture[xx * yy - xy**2 <= EDGE / (1 + EDGE) ** 2 * (xx + yy) ** 2] = 0
  grid = np.stack(np.meshgrid(tops, lefts, indexing='ij'), -1).reshape(-1, 2)
  return scipy.fft.rfft2(blocks), texture, grid


def _correlate(
  a: Complex[np.ndarray, '*K H F'], b: Complex[np.ndarray, '*K H F'], shape: tuple[int, int], power: float
) -> Float[np.ndarray, '*K H W']:
  """Phase correlation of spectra; `power` is that of the noise in a frequency."""
  whitened = a * b.conj() / np.sqrt((np.abs(a) ** 2 + power) * (np.abs(b) ** 2 + power))
  return scipy.fft.irfft2(whitened * _band(*shape), shape)


def _peaks(
  a: Complex[np.ndarray, 'K B F'], b: Complex[np.ndarray, 'K B F'], block: int
) -> tuple[Float64[np.ndarray, 'K 2'], Float64[np.ndarray, 'K 2 2'], Bool[np.ndarray, 'K']]:
  """Shift (x, y) of each block of `a` relative to `b`, minus the curvature of its peak, and whether it stands out."""
  surface = _correlate(a, b, (block, block), NOISE**2 * float((_window(block) ** 2).sum()))
  surface = np.fft.fftshift(surface, axes=(1, 2))
  k, half = np.arange(len(surface)), block // 2
  # Beyond a quarter of the block too little of it is shared, and 3 x 3 samples are needed.
  inner = surface[:, half // 2 : -(half // 2), half // 2 : -(half // 2)]
  top = inner.reshape(len(inner), -1).argmax(1)
  y, x = top // inner.shape[2] + half // 2, top % inner.shape[2] + half // 2
  near = {(dy, dx): surface[k, y + dy, x + dx].astype(np.float64) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
  height = near[0, 0]
  gradient = np.stack([near[0, 1] - near[0, -1], near[1, 0] - near[-1, 0]], -1) / 2
  xx, yy = 2 * height - near[0, 1] - near[0, -1], 2 * height - near[1, 0] - near[-1, 0]
  xy = -(near[1, 1] + near[-1, -1] - near[1, -1] - near[-1, 1]) / 4
  information = np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)
  curved = (xx > 0) & (yy > 0) & (xx * yy - xy**2 > 1e-3 * (xx + yy) ** 2)
  information[~curved] = np.eye(2)
  offset = np.linalg.solve(information, gradient[..., None])[..., 0]
  # The second peak: the highest sample outside the first one's hill.
  rows = np.abs(np.arange(block) - y[:, None])[:, :, None]
  columns = np.abs(np.arange(block) - x[:, None])[:, None, :]
  second = np.where(np.maximum(rows, columns) > PEAK_PX, surface, 0).max((1, 2))
  clear = curved & (np.abs(offset).max(1) <= 1) & (height >= PEAK) & (height >= PEAK_RATIO * second)
  return offset + np.stack([x, y], -1) - half, information, clear


def _whole_shift(moving: Float[np.ndarray, 'H W'], fixed: Float[np.ndarray, 'H W']) -> Float64[np.ndarray, '3']:
  """Motion without zoom, to a pixel, of the pictures as one block."""
  window = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in fixed.shape))
  a, b = (scipy.fft.rfft2(picture * window) for picture in (moving, fixed))
  surface = _correlate(a, b, fixed.shape, NOISE**2 * float((window**2).sum()))
  top = np.array(np.unravel_index(surface.argmax(), surface.shape))
  y, x = np.where(top > np.array(surface.shape) // 2, top - surface.shape, top)
  return np.array([1.0, x, y])


def _fit(
  places: Float64[np.ndarray, 'K 2'], found: Float64[np.ndarray, 'K 2'], information: Float64[np.ndarray, 'K 2 2']
) -> tuple[Float64[np.ndarray, '3'], int, float]:
  """Motion (zoom, x, y) of blocks at `places` that moved by `found`, how many agree, and the zoom's standard error."""
  rng = np.random.default_rng(0)
  first, second = rng.integers(len(places), size=(2, HYPOTHESES))
  apart, moved = places[first] - places[second], found[first] - found[second]
  square = (apart**2).sum(-1)
  growth = (apart * moved).sum(-1) / np.where(square > 0, square, 1)  # of zoom; 0 for a block with itself
  shift = (found[first] + found[second]) / 2 - growth[:, None] * (places[first] + places[second]) / 2
  miss = found - growth[:, None, None] * places - shift[:, None]
  agree = ((miss**2).sum(-1) < TOLERANCE_PX**2).sum(1)
  best = agree.argmax()
  params = np.array([growth[best], *shift[best]])

  # [K, 2, 3]: displacement of a block by each parameter.
  design = np.concatenate([places[..., None], np.broadcast_to(np.eye(2), (len(places), 2, 2))], -1)
  weighted = np.einsum('kji,kjl->kil', design, information)
  weight = np.zeros(len(places))
  for _ in range(10):
    distance = np.sqrt(((found - design @ params) ** 2).sum(-1))
    near = distance < TOLERANCE_PX
    scale = max(1.4826 * np.median(distance[near]) if near.any() else TOLERANCE_PX, 1e-3)
    weight = np.maximum(1 - (distance / (4.685 * scale)) ** 2, 0) ** 2
    normal = np.einsum('k,kil,klm->im', weight, weighted, design)
    params, last = np.linalg.lstsq(normal, np.einsum('k,kil,kl->i', weight, weighted, found), rcond=1e-10)[0], params
    if np.abs(params - last)[1:].max() < 1e-5 and abs(params - last)[0] < 1e-8:
      break
  miss = found - design @ params
  agree = int(np.count_nonzero((miss**2).sum(-1) < TOLERANCE_PX**2))
  # Sandwich estimate: needs no model of the votes' noise.
  influence = np.einsum('k,kil,kl->ki', weight, weighted, miss)
  inverse = np.linalg.pinv(normal)
  error = float(np.sqrt((inverse @ (influence.T @ influence) @ inverse)[0, 0]))
  return params + np.array([1.0, 0.0, 0.0]), agree, error
