"""Depth from focus without learning: the baseline that a network has to beat.

1. Sum of modified Laplacian: how much fine detail each frame shows around each pixel (`focus_measure`).
2. The frame where it peaks, with sub-frame precision from a Gaussian through three frames (`gaussian_peak`).
3. Pixels without texture have no peak: they take the depth of textured neighbours at the finest scale that has some
   (`fill`).

Steps 1 and 2 are Nayar and Nakagawa, "Shape from focus", PAMI 1994; step 3 is the pull-push of Gortler et al., "The
lumigraph", SIGGRAPH 1996, section 3.4. The frames must be aligned: a pixel is compared with itself in the other frames.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LUMA = (0.299, 0.587, 0.114)  # of R, G, B; ITU-R BT.601


@functools.partial(jax.jit, static_argnames=('step_px', 'window_px', 'margin_px'))
def depth_from_focus(
  images: Float[Array, 'N H W 3'],
  focus: Float[Array, ' N'],
  step_px: int = 2,
  window_px: float = 2.0,
  margin_px: int = 4,
  noise: float = 0.1,
  smoothness: float = 2.0,
) -> tuple[Float[Array, 'H W'], Float[Array, 'H W']]:
  """Depth and confidence of one aligned stack; `jax.vmap` it for more.

  The defaults were chosen on the training crops of DDFF-12.

  Args:
    images: RGB, 0 .. 1. Any number of frames, one included.
    focus: focus coordinate of each frame, in any unit and spacing, ascending or descending.
    step_px: distance of the two neighbours in the Laplacian; larger is less sensitive to noise.
    window_px: standard deviation of the Gaussian window that sums the Laplacian.
    margin_px: outermost pixels that are not looked at, because alignment or refocusing makes them up; they are treated
      as repetitions of their neighbours. Of a small image at most all but its centre.
    noise: focus measure that counts as texture-less, in luminance 0 .. 1; more of it trusts weak texture less.
    smoothness: how much a pixel of the stack's mean weight takes from the next coarser scale, next to 1 of itself.

  Returns:
    depth: in the unit of `focus` and within its range.
    confidence: how far the peak stands out, 0 .. 1: 1 - lowest / highest focus measure over the frames, noise added to
      both. 0 for no texture or one frame.
  """
  measure = focus_measure(images, step_px, window_px, margin_px)
  confidence = 1.0 - (jnp.min(measure, axis=0) + noise) / (jnp.max(measure, axis=0) + noise)
  index = gaussian_peak(measure)
  # The standard deviation of a peak's position falls with its contrast, so its inverse variance goes with the square.
  weight = confidence**2
  # Without any texture at all: the middle frame. The floor keeps 0 / 0 out of it.
  index = fill(index, weight, jnp.maximum(smoothness * jnp.mean(weight), 1e-20), (len(focus) - 1) / 2)
  # Linear between neighbouring frames, so that the coordinate needs no uniform spacing.
  return jnp.interp(index, jnp.arange(len(focus), dtype=index.dtype), focus), confidence


def focus_measure(
  images: Float[Array, 'N H W 3'], step_px: int, window_px: float, margin_px: int = 0
) -> Float[Array, 'N H W']:
  """Modified Laplacian |2 I - I(x - s) - I(x + s)| + |2 I - I(y - s) - I(y + s)| of the luminance, Gaussian-averaged.

  Absolute values are taken per axis, since the two second derivatives would cancel at a saddle (Nayar and Nakagawa,
  equation 2). Edges are repeated. In luminance 0 .. 1, so 0 .. 4; blind to a constant added to a frame.
  """
  luma = images @ jnp.asarray(LUMA, images.dtype)
  energy = _second_difference(luma, -2, step_px) + _second_difference(luma, -1, step_px)
  _, height, width = energy.shape
  margin = min(margin_px, (min(height, width) - 1) // 2)
  inner = energy[:, margin : height - margin, margin : width - margin]
  return _gaussian_window(jnp.pad(inner, ((0, 0), (margin, margin), (margin, margin)), mode='edge'), window_px)


def _second_difference(x: Float[Array, 'N H W'], axis: int, step: int) -> Float[Array, 'N H W']:
  pad = [(0, 0)] * x.ndim
  pad[axis] = (step, step)
  padded = jnp.pad(x, pad, mode='edge')
  size = x.shape[axis]
  before, after = (jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in (0, 2 * step))
  return jnp.abs(2 * x - before - after)


def _gaussian_window(x: Float[Array, 'N H W'], sigma_px: float) -> Float[Array, 'N H W']:
  """Separable Gaussian average, cut at 3 sigma, edges repeated."""
  radius = max(1, round(3 * sigma_px))
  taps = jnp.exp(-0.5 * (jnp.arange(-radius, radius + 1, dtype=x.dtype) / sigma_px) ** 2)
  taps /= jnp.sum(taps)
  padded = jnp.pad(x, ((0, 0), (radius, radius), (radius, radius)), mode='edge')[:, None]
  rows = jax.lax.conv(padded, taps.reshape(1, 1, -1, 1), (1, 1), 'VALID')
  return jax.lax.conv(rows, taps.reshape(1, 1, 1, -1), (1, 1), 'VALID')[:, 0]


def gaussian_peak(measure: Float[Array, 'N H W']) -> Float[Array, 'H W']:
  """Frame index 0 .. N - 1 of the measure's peak, between frames by a Gaussian through three.

  With L = ln(measure) and the largest one at i: i + (L[i+1] - L[i-1]) / (2 (2 L[i] - L[i-1] - L[i+1])), exact if the
  measure is a Gaussian of the index. At most half a frame from i, because L[i] is the largest. A peak at the first
  or last frame has one neighbour only and stays there.
  """
  n = measure.shape[0]
  peak = jnp.argmax(measure, axis=0)
  # ln of the smallest normal number rather than of 0: a difference of infinities would be NaN.
  log = jnp.log(jnp.maximum(measure, jnp.finfo(measure.dtype).tiny))

  def at(k):
    return jnp.take_along_axis(log, jnp.clip(k, 0, n - 1)[None], axis=0)[0]

  before, top, after = at(peak - 1), at(peak), at(peak + 1)
  curvature = 2 * top - before - after
  bracketed = (peak > 0) & (peak < n - 1) & (curvature > 0)
  return peak + jnp.where(bracketed, (after - before) / (2 * jnp.where(bracketed, curvature, 1.0)), 0.0)


def fill(
  value: Float[Array, 'H W'],
  weight: Float[Array, 'H W'],
  prior: Float[Array, ''] | float,
  default: Float[Array, ''] | float,
) -> Float[Array, 'H W']:
  """Normalised convolution over all scales: (weight value + prior coarser) / (weight + prior).

  `coarser` is the same at half the resolution, of weighted means over 2 x 2 pixels, and so on down to one pixel. Where
  the weight is well above `prior` (> 0) a pixel keeps its value; where it is 0 it takes that of its surroundings, and
  `default` if the weight is 0 everywhere.
  """
  height, width = value.shape
  if height == width == 1:
    return jnp.where(weight > 0, value, default)
  even = ((0, height % 2), (0, width % 2))

  def pool(x):
    return jnp.pad(x, even).reshape((height + 1) // 2, 2, (width + 1) // 2, 2).mean(axis=(1, 3))

  pooled = pool(weight)
  coarse = fill(pool(weight * value) / jnp.where(pooled > 0, pooled, 1.0), pooled, prior, default)
  upsampled = jax.image.resize(coarse, (2 * coarse.shape[0], 2 * coarse.shape[1]), 'linear')[:height, :width]
  return (weight * value + prior * upsampled) / (weight + prior)
