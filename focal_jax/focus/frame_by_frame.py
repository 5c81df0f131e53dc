"""Classical depth from focus without the whole stack in memory: equal to `classical` up to rounding.

Each pixel keeps its highest focus measure and the neighbouring ones. The all-in-focus image that guides the smoothing
needs depth first, so there are two passes over the frames.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from focal_jax.focus import classical


class _Peak(NamedTuple):
  """State for `classical.gaussian_peak` over the frames so far.

  Attributes:
    index: the frame with the highest measure, the first if several are equal.
    highest, before, after: the measure there and in the neighbouring frames; beyond the ends, that of the end frame.
    lowest: lowest measure of all frames.
    last: measure of the last frame so far.
  """

  index: Int[Array, 'H W']
  highest: Float[Array, 'H W']
  before: Float[Array, 'H W']
  after: Float[Array, 'H W']
  lowest: Float[Array, 'H W']
  last: Float[Array, 'H W']


def depth_frame_by_frame(
  luma: Callable[[int], Float[Array, 'H W']],
  frames: int,
  focus: Float[np.ndarray, ' N'] | None,
  measure: str = 'ring_difference',
) -> tuple[Float[Array, 'H W'], Float[Array, 'H W']]:
  """`classical.depth_from_focus` with its defaults.

  Args:
    luma: gives the luminance of a frame, 0 .. 1, with or without its mean; called twice for each frame, in their order.
    frames: how many there are.
    focus: as there.
    measure: as there.

  Raises:
    InputError: there is no such measure.
  """
  peak = None
  for n in range(frames):
    response = focus_measure(luma(n), measure)
    peak = _start(response) if peak is None else _next(peak, response, np.int32(n))
  index, confidence, weight = _filled(peak, np.int32(frames), measure)
  guide = jnp.zeros_like(index)
  for n in range(frames):
    guide = _with_frame(guide, index, luma(n), np.float32(n))
  return classical.in_unit(_smoothed(index, guide, weight), focus, frames), confidence


@partial(jax.jit, static_argnames='measure')
def focus_measure(luma: Float[Array | np.ndarray, 'H W'], measure: str = 'ring_difference') -> Float[Array, 'H W']:
  """Focus measure of one frame, as in `classical.depth_from_focus`."""
  return classical.focus_measure_of_luma(luma[None], measure=measure)[0]


def _start(response: Float[Array, 'H W']) -> _Peak:
  return _Peak(jnp.zeros(response.shape, jnp.int32), *[response] * 5)


@jax.jit
def _next(peak: _Peak, response: Float[Array, 'H W'], n: Int[Array, '']) -> _Peak:
  higher, follows = response > peak.highest, peak.index == n - 1
  return _Peak(
    index=jnp.where(higher, n, peak.index),
    highest=jnp.where(higher, response, peak.highest),
    before=jnp.where(higher, peak.last, peak.before),
    after=jnp.where(higher | follows, response, peak.after),
    lowest=jnp.minimum(response, peak.lowest),
    last=response,
  )


@partial(jax.jit, static_argnames='measure')
def _filled(
  peak: _Peak, frames: Int[Array, ''], measure: str
) -> tuple[Float[Array, 'H W'], Float[Array, 'H W'], Float[Array, 'H W']]:
  index = classical.between_frames(peak.index, frames, peak.before, peak.highest, peak.after)
  texture_less = classical.noise_response(measure, classical.NOISE)
  return classical.filled_index(index, peak.lowest, peak.highest, frames, texture_less, classical.SMOOTHNESS)


@partial(jax.jit, donate_argnums=0)
def _with_frame(
  guide: Float[Array, 'H W'], index: Float[Array, 'H W'], luma: Float[Array, 'H W'], n: Float[Array, '']
) -> Float[Array, 'H W']:
  """`classical.all_in_focus`, a frame at a time."""
  shown = classical.guide_luma(luma[None], classical.MARGIN_PX)[0]
  return guide + shown * jnp.maximum(1 - jnp.abs(index - n), 0)


@jax.jit
def _smoothed(
  index: Float[Array, 'H W'], guide: Float[Array, 'H W'], weight: Float[Array, 'H W']
) -> Float[Array, 'H W']:
  return classical.guided_filter(index, guide, weight, classical.GUIDE_RADIUS_PX, classical.GUIDE_CONTRAST)
