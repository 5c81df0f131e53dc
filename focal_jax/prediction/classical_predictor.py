"""Depth from focus without a network or weights: `focal_jax.load('classical')`.

Depth is where the aligned frames are sharpest (`focus.classical`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from focal_jax import warp
from focal_jax.align.estimate import find_motion
from focal_jax.errors import InputError
from focal_jax.focus import classical
from focal_jax.prediction.predictor import Predictor, undo_rotation
from focal_jax.stack import FocalStack, Images, Numbers, Prediction, checked_stack, float_images


class ClassicalPredictor(Predictor):
  """Classical depth from focus; see `focal_jax.load`.

  Attributes:
    name: 'classical' or 'classical:MEASURE'.
    unused: [], for there is no weights file.
  """

  def __init__(self, name: str = 'classical'):
    """`name`: see above.

    Raises:
      InputError: there is no such measure.
    """
    kind, colon, measure = name.partition(':')
    if kind != 'classical' or (colon and measure not in classical.MEASURES):
      raise InputError(f"method is '{name}', expected classical, or classical: and {' or '.join(classical.MEASURES)}")
    self.name, self.unused = name, []
    self._options = (('measure', measure),) if measure else ()

  def predict(
    self,
    images: Images,
    focus: Numbers,
    fov: Numbers | None = None,
    align: str = 'measured',
    motion: np.ndarray | jax.Array | None = None,
    *,
    tile_px: int | None = None,
  ) -> Prediction:
    """Depth of one focal stack; see `Predictor.predict`.

    Args:
      images, align, motion: as of any predictor. A field of view is what aligns frames whose motion cannot be measured.
      focus: [N] focus coordinate of each frame, in any unit, order and spacing.
      fov: as of any predictor.
      tile_px: of no effect: frames of any size are predicted in one piece.

    Returns:
      numpy arrays, float32: `depth` and `confidence` [H, W], `coverage` [N, H, W], `aligned` [N, H, W, 3] 0 .. 1,
      `motion` [N, 3] (alpha, beta, gamma; 0 where it cannot be measured). Depth is in the unit of `focus`. Confidence
      is `classical.depth_from_focus`'s, times the share of the frames that cover the pixel. There is no `pyramid` and
      no `weights`.

    Raises:
      InputError: an argument of another shape, type or range, or `align` is 'network'.

    A second call with the same shape does not compile again.
    """
    stack = checked_stack(images, focus, fov)
    return undo_rotation(self._predict_upright, stack, find_motion(stack, align, given=motion, name=self.name))

  def _predict_upright(self, stack: FocalStack, motion: Float32[np.ndarray, 'N 3'] | None) -> Prediction:
    warped = motion is not None
    motion = motion if warped else np.zeros((len(stack.images), 3), np.float32)
    # By focus: a peak is interpolated from its neighbours in focus.
    order = np.argsort(stack.focus, kind='stable')
    back = np.argsort(order)
    ordered = jax.tree.map(lambda x: x[order], stack)
    prediction = jax.device_get(_predict(ordered, motion[order], self._options, warped))
    return prediction.replace(aligned=prediction.aligned[back], coverage=prediction.coverage[back], motion=motion)


@functools.partial(jax.jit, static_argnames=('options', 'warped'))
def _predict(stack: FocalStack, motion: Float[np.ndarray | Array, 'N 3'], options: tuple, warped: bool) -> Prediction:
  stack = float_images(stack)
  seen = aligned = stack.images
  coverage = jnp.ones(aligned.shape[:-1], aligned.dtype)
  if warped:
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
