"""The two data types of the project: a `FocalStack` is the input of models, a `Prediction` their output.

Shape letters: B batch, N frames, H height, W width, C channels; channels last; `*B` any leading axes.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from focal_jax.errors import InputError

# What callers may pass, before `checked_stack`.
Images = np.ndarray | jax.Array
Numbers = np.ndarray | jax.Array | Sequence[float | int]


@flax.struct.dataclass
class FocalStack:
  """One view at N focus distances, frames ordered far to near; the last frame is the alignment reference.

  Attributes:
    images: RGB; uint8 0 .. 255 on the host, float 0 .. 1 on the device.
    focus: focus coordinate of each frame, in the unit of the depth (dioptres, disparity pixels, metres, index).
    fov: relative field of view of each frame, 1 for the narrowest (`optics.relative_field_of_view`).
    target: true depth of the reference frame, in the unit of `focus`; None if unknown.
    valid: weight of each pixel of `target`, 0 .. 1; None if `target` is None.
    motion: true (alpha, beta, gamma) of each frame (`warp`); None if unknown.
    all_in_focus: the reference frame with everything in focus, of the type of `images`; None if unknown.
  """

  images: Shaped[Array | np.ndarray, '*B N H W 3']
  focus: Float[Array | np.ndarray, '*B N']
  fov: Float[Array | np.ndarray, '*B N']
  target: Float[Array | np.ndarray, '*B H W'] | None = None
  valid: Float[Array | np.ndarray, '*B H W'] | None = None
  motion: Float[Array | np.ndarray, '*B N 3'] | None = None
  all_in_focus: Shaped[Array | np.ndarray, '*B H W 3'] | None = None


@flax.struct.dataclass
class Prediction:
  """The output of every model.

  Attributes:
    depth: the finest depth map, in the unit of the stack's `focus`.
    confidence: 0 .. 1; for a network from the spread of the focus distribution (`confidence_from_spread`); 0 for
      methods without confidence.
    aligned: the frames aligned to the last one, RGB 0 .. 1; black outside, or grey from a network.
    coverage: share of each aligned pixel that came from inside its frame, 0 .. 1.
    motion: estimated (alpha, beta, gamma) of each frame (`warp`).
    rotation: rotation of the content of each frame, radians, clockwise in the image; undone before the motion
      (`align.motion.rotate_back`). None if not estimated; alignment networks do not estimate it.
    pyramid: a network's depth maps, coarse to fine, all at full resolution; the last one is `depth`.
    weights: the focus distribution of `depth`; sums to 1 over the frames. The end frames include the weight of what
      lies beyond them.
    uncertainty: standard deviation of `weights` (`spread`), in the unit of `depth`.
    all_in_focus: the reference frame with everything in focus, RGB 0 .. 1, if the network predicts it.
    defocus: defocus of each frame, 0 .. 1, if the network predicts it.

  `pyramid`, `weights`, `uncertainty`, `all_in_focus`, `defocus` and `rotation` are None if the method lacks them.
  """

  depth: Float[Array | np.ndarray, '*B H W']
  confidence: Float[Array | np.ndarray, '*B H W']
  aligned: Float[Array | np.ndarray, '*B N H W 3']
  coverage: Float[Array | np.ndarray, '*B N H W']
  motion: Float[Array | np.ndarray, '*B N 3']
  pyramid: tuple[Float[Array | np.ndarray, '*B H W'], ...] | None = None
  weights: Float[Array | np.ndarray, '*B N H W'] | None = None
  uncertainty: Float[Array | np.ndarray, '*B H W'] | None = None
  all_in_focus: Float[Array | np.ndarray, '*B H W 3'] | None = None
  defocus: Float[Array | np.ndarray, '*B N H W'] | None = None
  rotation: Float[Array | np.ndarray, '*B N'] | None = None

  def cropped(self, height: int, width: int) -> 'Prediction':
    """The top left corner of every map and frame."""
    cut = {name: jax.tree.map(lambda x: x[..., :height, :width], getattr(self, name)) for name in ('pyramid', *MAPS)}
    cut |= {name: jax.tree.map(lambda x: x[..., :height, :width, :], getattr(self, name)) for name in PICTURES}
    return self.replace(**cut)


# Fields of a prediction that end with H W, and with H W 3.
MAPS = ('depth', 'confidence', 'coverage', 'weights', 'uncertainty', 'defocus')
PICTURES = ('aligned', 'all_in_focus')


def spread(weights: Float[Array, '*B N H W'], focus: Float[Array, '*B N']) -> Float[Array, '*B H W']:
  """Standard deviation of the focus coordinate under a focus distribution, in the unit of `focus`."""
  # About the mean, not as E[x^2] - E[x]^2, which cancels in float32 where the spread is small.
  coordinate = focus[..., None, None]
  mean = jnp.sum(weights * coordinate, axis=-3, keepdims=True)
  return jnp.sqrt(jnp.sum(weights * (coordinate - mean) ** 2, axis=-3))


def checked_stack(images: Images, focus: Numbers, fov: Numbers | None) -> FocalStack:
  """A stack from the arguments of `Predictor.predict`, on the host: uint8 or float32 images, float32 numbers.

  Raises:
    InputError: an argument with a wrong shape, type or range.
  """
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
    raise InputError(f'images: shape {images.shape}, expected [N, H, W, 3]')
  frames = images.shape[0]
  if frames < 2:
    raise InputError(f'images: {frames} frame, expected at least 2')
  if images.dtype != np.uint8:
    if not np.issubdtype(images.dtype, np.floating):
      raise InputError(f'images: type {images.dtype}, expected uint8, or float 0 .. 1')
    # Written so that NaN fails too; the margin allows for the overshoot of a resize.
    if not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):
      raise InputError(f'images: float values from {images.min()} to {images.max()}, expected 0 .. 1')
    images = images.astype(np.float32)
  values = {
    'focus': np.asarray(focus, np.float32),
    'fov': np.asarray(np.ones(frames) if fov is None else fov, np.float32),
  }
  for name, value in values.items():
    if value.shape != (frames,):
      raise InputError(f'{name}: shape {value.shape}, expected ({frames},), one per frame')
    if not np.isfinite(value).all():
      raise InputError(
        f'{name}: {value[~np.isfinite(value)][0]} at frame {np.argmin(np.isfinite(value))}, expected finite'
      )
  if (values['fov'] <= 0).any():
    raise InputError(f'fov: {values["fov"].min()} at frame {values["fov"].argmin()}, expected above 0')
  return FocalStack(images=images, **values)


def confidence_from_spread(
  weights: Float[Array, '*B N H W'],
  focus: Float[Array, '*B N'],
  disagreement: Float[Array, '*B H W'] | float = 0.0,
) -> Float[Array, '*B H W']:
  """1 - sigma / sigma_max of the focus distribution: 1 for all weight on one frame, 0 for half at either end.

  sigma is its standard deviation (`spread`), at most (b - a) / 2 for a distribution on [a, b] (Popoviciu's inequality),
  so the result is in 0 .. 1 in any unit.

  Args:
    weights: the focus distribution, summing to 1 over the frames.
    focus: focus coordinate of each frame, in any unit.
    disagreement: difference of two estimates of the depth, in the unit of `focus`; adds to sigma in quadrature.
  """
  widest = (jnp.max(focus, axis=-1) - jnp.min(focus, axis=-1))[..., None, None] / 2
  sigma = jnp.hypot(spread(weights, focus), disagreement)
  # A stack whose frames all share one focus coordinate has no spread: call it certain rather than 0 / 0.
  return jnp.clip(1.0 - sigma / jnp.where(widest > 0, widest, 1.0), 0.0, 1.0)


def as_float(images: Shaped[Array | np.ndarray, '*S 3']) -> Float[Array | np.ndarray, '*S 3']:
  """Images as float 0 .. 1: uint8 ones are divided by 255, float ones stay."""
  return images / np.float32(255) if images.dtype == np.uint8 else images


def float_images(stack: FocalStack) -> FocalStack:
  """The stack with all its images as float 0 .. 1; uint8 images are divided by 255, float ones stay."""
  sharp = stack.all_in_focus
  return stack.replace(images=as_float(stack.images), all_in_focus=None if sharp is None else as_float(sharp))
