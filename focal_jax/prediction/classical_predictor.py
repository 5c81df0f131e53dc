"""Depth from focus without a network or weights: `focal_jax.load('classical')`.

The motion of the frames is measured by phase correlation (`residual_motion`), the frames are warped by it, and depth
is where the aligned frames are sharpest (`classical`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax import warp
from focal_jax.align.measured import ResidualMotion, residual_motion
from focal_jax.align.motion import checked_motion
from focal_jax.errors import InputError
from focal_jax.focus import classical
from focal_jax.stack import FocalStack, Images, Numbers, Prediction, checked_stack, float_images


class ClassicalModel:
  """Classical depth from focus with the interface of `api.Model`; see `api.load`.

  Attributes:
    name: 'classical' or 'classical:MEASURE'.
    description: {}, for there is no weights file.
    unused: [], likewise.
  """

  def __init__(self, name: str = 'classical'):
    """`name`: see above.

    Raises:
      InputError: there is no such measure.
    """
    kind, colon, measure = name.partition(':')
    if kind != 'classical' or (colon and measure not in classical.MEASURES):
      raise InputError(f"method is '{name}', expected classical, or classical: and {' or '.join(classical.MEASURES)}")
    self.name, self.description, self.unused = name, {}, []
    self._options = (('measure', measure),) if measure else ()

  def predict(
    self,
    images: Images,
    focus: Numbers,
    fov: Numbers | None = None,
    align: bool = True,
    motion: np.ndarray | jax.Array | None = None,
  ) -> Prediction:
    """Depth of one focal stack.

    Args:
      images: [N, H, W, 3] RGB, uint8 or float 0 .. 1; N >= 2 frames, the last one is what the others are aligned to;
        any H and W.
      focus: [N] focus coordinate of each frame, in any unit, order and spacing.
      fov: [N] relative field of view, 1 for the narrowest (`optics.relative_field_of_view`); None: all 1. It is what
        aligns frames whose motion cannot be measured.
      align: False takes the frames as they are.
      motion: [N, 3] (alpha, beta, gamma), in px of these frames, to align by in place of what is measured; zeros for
        the field-of-view crop alone.

    Returns:
      numpy arrays, float32: `depth` and `confidence` [H, W], `coverage` [N, H, W], `aligned` [N, H, W, 3] 0 .. 1,
      `motion` [N, 3] (alpha, beta, gamma; 0 where it cannot be measured). Depth is in the unit of `focus`. Confidence
      is `classical.depth_from_focus`'s, times the share of the frames that cover the pixel. There is no `pyramid` and
      no `weights`.

    Raises:
      InputError: an argument of another shape, type or range.

    A second call with the same shape does not compile again.
    """
    stack = checked_stack(images, focus, fov)
    motion = checked_motion(motion, align, len(stack.images))
    if motion is None:
      motion = _measured_motion(stack) if align else np.zeros((len(stack.images), 3), np.float32)
    order, back = _focus_order(stack)
    ordered = jax.tree.map(lambda x: x[order], stack)
    prediction = jax.device_get(_predict(ordered, motion[order], self._options, bool(align)))
    return prediction.replace(aligned=prediction.aligned[back], coverage=prediction.coverage[back], motion=motion)

  def estimate_motion(self, images: Images, focus: Numbers, fov: Numbers | None = None) -> Float[np.ndarray, 'N 3']:
    """Motion (alpha, beta, gamma) of every frame, without depth: `predict`'s.

    Raises:
      InputError: an argument of another shape, type or range.
    """
    return _measured_motion(checked_stack(images, focus, fov))


def _focus_order(stack: FocalStack) -> tuple[np.ndarray, np.ndarray]:
  """Frames by focus, and back: neighbours in focus are what motion is measured between, and what a peak is interpolated
  from.
  """
  order = np.argsort(stack.focus, kind='stable')
  return order, np.argsort(order)


def _measured_motion(stack: FocalStack) -> Float[np.ndarray, 'N 3']:
  """Motion of every frame, the last one being the reference."""
  order, back = _focus_order(stack)
  reference = int(back[-1])
  with np.errstate(divide='ignore', invalid='ignore'):  # of frames of a few pixels, whose motion is NaN
    measured = residual_motion(stack.images[order], reference)
  return motion_from_measured(measured, stack.fov[order], reference)[back]


def motion_from_measured(
  measured: ResidualMotion, fov: Float[np.ndarray, 'N'], reference: int = -1
) -> Float[np.ndarray, 'N 3']:
  """The motion (alpha, beta, gamma) that `warp` undoes, of frames with relative fields of view `fov`; float32.

  A point q px from the centre of the reference lies at zoom q + shift in the frame. The reference itself is warped by
  its field of view alone, so that what is at q after the warp is at z q before, and in the frame at zoom z q + shift.
  `warp` samples the frame at q - s (fov + alpha - 1) q - (beta, gamma), with s = 2 (W // 2) / (W - 1) from q in px to
  its u times W // 2. Hence alpha and the shift. Motion that is NaN becomes 0: the field of view alone.
  """
  # Of even and odd lengths s differs by less than 1 / length, which is as near as one zoom for both axes comes.
  stretch = np.mean([2 * (n // 2) / max(n - 1, 1) for n in measured.size])
  if stretch == 0:  # a single pixel
    return np.zeros((len(fov), 3), np.float32)
  fov = fov.astype(np.float64)
  zoom = measured.zoom * (1 - stretch * (fov[reference] - 1))
  motion = np.concatenate([((1 - zoom) / stretch - (fov - 1))[:, None], -measured.shift_px], axis=-1)
  return np.where(np.isfinite(motion), motion, 0).astype(np.float32)


@functools.partial(jax.jit, static_argnames=('options', 'align'))
def _predict(stack: FocalStack, motion: Float[np.ndarray | Array, 'N 3'], options: tuple, align: bool) -> Prediction:
  stack = float_images(stack)
  seen = aligned = stack.images
  coverage = jnp.ones(aligned.shape[:-1], aligned.dtype)
  if align:
    height, width = aligned.shape[1:3]
    aligned = warp.warp(stack.images, stack.fov, motion)
    coverage = warp.coverage(stack.fov, motion, height, width)
    # Without their means, which a focus measure does not see, but of whose rounding it would make texture.
    seen = warp.warp_sharp(stack.images - jnp.mean(stack.images, axis=(1, 2), keepdims=True), stack.fov, motion)
  depth, confidence = classical.depth_from_focus(seen, stack.focus, **dict(options))
  return Prediction(
    depth=depth,
    # A frame that does not show a pixel cannot have been compared there.
    confidence=confidence * jnp.mean(coverage, 0),
    aligned=aligned,
    coverage=coverage,
    motion=jnp.asarray(motion, aligned.dtype),
  )
