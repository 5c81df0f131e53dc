"""Depth from focus without a network or weights: `focal_jax.load('classical')`.

Depth is where the aligned frames are sharpest (`focus.classical`). Frames are processed one by one, so apart from the
result, which contains all frames, only a few are in memory.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped

from focal_jax import warp
from focal_jax.align.estimate import find_motion
from focal_jax.errors import InputError
from focal_jax.focus import classical
from focal_jax.focus.frame_by_frame import depth_frame_by_frame
from focal_jax.prediction.predictor import Predictor, undo_rotation
from focal_jax.stack import FocalStack, Images, Numbers, Prediction, as_float, checked_stack

# Up to this many pixels in all frames, luminance is kept rather than computed twice, and the result is float32.
KEPT_PX = 32 * 1024**2


class ClassicalPredictor(Predictor):
  """Classical depth from focus; see `focal_jax.load`.

  Attributes:
    name: 'classical' or 'classical:MEASURE'.
    unused: [], because there is no weights file.
  """

  def __init__(self, name: str = 'classical'):
    """`name`: 'classical' or 'classical:MEASURE'.

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
    """Depth of one focal stack; see `Predictor.predict`. A second call with the same shape does not compile again.

    Args:
      images, fov, align, motion: as for any predictor. The field of view aligns frames whose motion cannot be measured.
      focus: [N] focus coordinate of each frame, in any unit, order and spacing.
      tile_px: ignored: frames of any size are predicted in one piece.

    Returns:
      numpy arrays, float32: `depth` and `confidence` [H, W], `coverage` [N, H, W], `aligned` [N, H, W, 3] 0 .. 1,
        `motion` [N, 3] (alpha, beta, gamma; 0 where it cannot be measured). With more than 32 megapixels in all frames,
        `coverage` and `aligned` are float16, to save memory. Depth is in the unit of `focus`. Confidence is that of
        `classical.depth_from_focus` times the share of the frames that cover the pixel. There is no `pyramid` and no
        `weights`.

    Raises:
      InputError: an argument with a wrong shape, type or range, or `align` is 'network'.
    """
    stack = checked_stack(images, focus, fov)
    return undo_rotation(self._predict_upright, stack, find_motion(stack, align, given=motion, name=self.name))

  def _predict_upright(self, stack: FocalStack, motion: Float32[np.ndarray, 'N 3'] | None) -> Prediction:
    frames, *size = stack.images.shape[:3]
    warped = motion is not None
    motion = motion if warped else np.zeros((frames, 3), np.float32)
    # Sorted by focus, because a peak is interpolated from its neighbours in focus.
    order = np.argsort(stack.focus, kind='stable')

    def luma(place):
      n = order[place]
      return _luma(stack.images[n], stack.fov[n], motion[n], warped)

    is_small = math.prod(stack.images.shape[:3]) <= KEPT_PX
    if is_small:  # used twice
      luma = functools.cache(luma)

    depth, confidence = depth_frame_by_frame(luma, frames, stack.focus[order], **dict(self._options))
    # Filled in place, so that per-frame results are in memory only once.
    dtype = np.float32 if is_small else np.float16
    aligned = np.empty((frames, *size, 3), dtype)
    coverage = np.ones((frames, *size), dtype)
    for n in range(frames):
      if warped:
        aligned[n], coverage[n] = _warped(stack.images[n], stack.fov[n], motion[n])
      else:
        aligned[n] = as_float(stack.images[n])
    return Prediction(
      depth=np.asarray(depth),
      # A frame that does not cover a pixel was not compared there.
      confidence=np.asarray(confidence) * np.mean(coverage, 0, np.float32),
      aligned=aligned,
      coverage=coverage,
      motion=motion,
    )


@functools.partial(jax.jit, static_argnames='warped')
def _luma(
  frame: Shaped[Array, 'H W 3'], fov: Float[Array, ''], motion: Float[Array, '3'], warped: bool
) -> Float[Array, 'H W']:
  """Luminance for measuring sharpness. For warped frames its mean is subtracted: focus measures ignore it, but would
  take its rounding errors for texture.
  """
  luma = classical.luminance(as_float(frame))
  if not warped:
    return luma
  centred = (luma - jnp.mean(luma))[None, ..., None]
  return warp.warp_sharp(centred, fov[None], motion[None])[0, ..., 0]


@jax.jit
def _warped(
  frame: Shaped[Array, 'H W 3'], fov: Float[Array, ''], motion: Float[Array, '3']
) -> tuple[Float[Array, 'H W 3'], Float[Array, 'H W']]:
  coverage = warp.coverage(fov[None], motion[None], *frame.shape[:2])[0]
  return warp.warp(as_float(frame)[None], fov[None], motion[None])[0], coverage
