"""A focal stack as it comes from a camera to a `Prediction`: padding, alignment, depth."""

import contextlib
import zlib
from typing import Any, Literal

import flax.linen as nn
import flax.traverse_util
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax import warp
from focal_jax.models.alignment import AlignmentNetwork
from focal_jax.models.depth import MULTIPLE, DepthNetwork
from focal_jax.stack import FocalStack, Prediction, confidence_from_spread, spread

Dimension = Any  # of an array: an integer, or in an export the symbol of any


class EndToEnd(nn.Module):
  """Alignment network, warp, depth network.

  Attributes:
    depth: the depth network: called with frames -1 .. 1, [B, N, H, W, 3], of heights and widths that are multiples of
      32, their focus and `train`, it returns `DepthMaps`.
    alignment: the alignment network; called as `AlignmentNetwork` is.
    channels: channel order that the weights expect. Stack and prediction are RGB in any case.
    padding: what fills up height and width to multiples of 32, at the bottom and right: 'black', 'edge' or 'reflect'
      (without repeating the edge).
    motion_side_px: longer side to which frames are reduced before their motion is estimated; 0: not at all, as
      published. A network trained on small crops knows no large displacements.
    motion_passes: how often the motion is estimated, from the second time on of frames warped by what was found
      before; 1 as published.
    resampling: of the frames that the depth network is given: 'linear', as published, or 'lanczos' (`warp.warp_sharp`).
      What is handed out as aligned is linear in any case.
    dtype: in which the networks compute, float32 or bfloat16. Parameters, geometry, what becomes of the scores and
      everything in the prediction are float32.
    precision: of the networks' convolutions and matrix products in float32, 'default', 'high' or 'highest'. TPUs
      multiply in bfloat16 and recent GPUs in TF32 by default, which moves depth by 0.02 and 0.002 % of the focus range
      in the mean, by 0.09 and 0.007 % at one pixel in a hundred (by rounding on a CPU: `benchmarks.precision`).
      'default' leaves it to `jax.default_matmul_precision`.
  """

  depth: nn.Module = DepthNetwork()
  alignment: nn.Module = AlignmentNetwork()
  channels: Literal['RGB', 'BGR'] = 'RGB'
  padding: Literal['edge', 'black', 'reflect'] = 'edge'
  motion_side_px: int = 0
  motion_passes: int = 1
  resampling: Literal['linear', 'lanczos'] = 'linear'
  dtype: Any = jnp.float32
  precision: Literal['default', 'high', 'highest'] = 'default'

  def __call__(
    self,
    stack: FocalStack,
    *,
    align: bool = True,
    train: bool = False,
    size: warp.Size | None = None,
    motion: Float[Array, 'B N 3'] | None = None,
  ) -> Prediction:
    """Depth of a batch of stacks.

    Args:
      stack: images float 0 .. 1, any height and width.
      align: False skips the alignment network and the field-of-view crop.
      train: batch statistics instead of running averages.
      size: height and width of what holds the frames, at the top left of `images`; the rest of the prediction is of no
        meaning. Integers, or arrays, so that frames of many sizes in arrays of one (`padded_size`) are predicted by
        what was compiled once. None: all of it.
      motion: undone instead of an estimated motion.
    """
    height, width = stack.images.shape[2:4]
    size = size or (height, width)
    images = self._pad(self._to_network(stack.images), size)
    if align:
      motion = self.estimate_motion(stack, train=train, size=size) if motion is None else motion
      given, images = images, self._fill(warp.warp(images, stack.fov, motion, size), size)
      coverage = warp.coverage(stack.fov, motion, *images.shape[2:4], size)
      seen = images
      if self.resampling == 'lanczos':
        seen = self._fill(jnp.clip(warp.warp_sharp(given, stack.fov, motion, size), -1.0, 1.0), size)
    else:
      seen, motion = images, jnp.zeros((*stack.fov.shape, 3), images.dtype)
      coverage = jnp.ones(images.shape[:-1], images.dtype)
    with self._multiplying():
      maps = self.depth(seen.astype(self.dtype), stack.focus, train=train)
    weights, sharp, confidence = maps.weights, maps.all_in_focus, maps.confidence
    if confidence is None:
      confidence = jnp.zeros_like(maps.pyramid[-1]) if weights is None else confidence_from_spread(weights, stack.focus)
    prediction = Prediction(
      depth=maps.pyramid[-1],
      confidence=confidence,
      pyramid=maps.pyramid,
      weights=weights,
      uncertainty=None if weights is None else spread(weights, stack.focus),
      all_in_focus=None if sharp is None else self._in_order(sharp),
      defocus=maps.defocus,
      aligned=self._from_network(images),
      coverage=coverage,
      motion=motion,
    )
    return prediction.cropped(height, width)

  def estimate_motion(
    self, stack: FocalStack, *, train: bool = False, size: warp.Size | None = None
  ) -> Float[Array, 'B N 3']:
    """The alignment network alone: motion (alpha, beta, gamma) of every frame; see `warp`. `size`: as in calling."""
    images, given = stack.images, size or stack.images.shape[2:4]
    padded = padded_size(*images.shape[2:4])
    size, side = given, self.motion_side_px
    longer = jax.core.max_dim(*padded)  # of symbolic sizes, too
    if side and (jax.export.is_symbolic_dim(longer) or side < longer):
      scale = jnp.minimum(side / jnp.maximum(*given), 1.0)
      size = tuple(jnp.maximum(jnp.round(scale * length), 1.0) for length in given)
      small = reduced_size(*padded, side)
      axes = zip(small, size, images.shape[2:4], given, strict=True)
      matrices = (warp.reduction_matrix(*axis) for axis in axes)
      images = warp.resample(images, *(jnp.broadcast_to(one, (*images.shape[:2], *one.shape)) for one in matrices))
    images = self._pad(self._to_network(images), size)
    with self._multiplying():
      motion = self.alignment(images.astype(self.dtype), stack.fov, size=size, train=train)
    for _ in range(1, self.motion_passes):
      # Field of view 1: what metadata say of it is undone already.
      warped = self._fill(warp.warp(images, stack.fov, motion, size), size).astype(self.dtype)
      with self._multiplying():
        found = self.alignment(warped, jnp.ones_like(stack.fov), size=size, train=train)
      motion = warp.compose_motion(stack.fov, motion, found, size)
    return motion * jnp.stack([1.0, given[1] / size[1], given[0] / size[0]])  # a zoom has no unit, a shift is in px

  def draw(
    self,
    rng: np.random.Generator,
    path: tuple[str, ...],
    shape: tuple[int, ...],
    kernel: tuple[int, ...] | None,
  ) -> np.ndarray:
    """Initial values of a variable; see `draw_variable`. A depth network may have a `draw` of its own."""
    draw = getattr(self.depth, 'draw', draw_variable) if path[0] == 'depth' else draw_variable
    return draw(rng, path[1:], shape, kernel)

  def _multiplying(self):
    if self.precision == 'default':
      return contextlib.nullcontext()
    return jax.default_matmul_precision(self.precision)

  def _in_order(self, images):
    """From RGB to the weights' order of channels, or back."""
    return images if self.channels == 'RGB' else images[..., ::-1]

  def _to_network(self, images):
    return 2.0 * self._in_order(images) - 1.0

  def _from_network(self, images):
    return self._in_order(images) / 2.0 + 0.5

  def _pad(self, images, size):
    """To multiples of MULTIPLE, at the bottom and right; all that is beyond `size` is filled up."""
    return self._fill(jnp.pad(images, padding_widths(*images.shape[2:4])), size)

  def _fill(self, images, size):
    for axis, end in zip((2, 3), size, strict=True):
      length = images.shape[axis]
      if isinstance(end, int) and end == length:
        continue
      place = jnp.arange(length)
      if self.padding == 'reflect':
        period = jnp.maximum(2 * (end - 1), 1)
        images = jnp.take(images, jnp.minimum(place % period, -place % period), axis=axis)
        continue
      inside = (place < end).reshape(-1, *(1,) * (4 - axis))
      filler = -1.0
      if self.padding == 'edge':
        filler = jax.lax.dynamic_index_in_dim(images, jnp.asarray(end - 1, jnp.int32), axis)
      images = jnp.where(inside, images, filler)
    return images


def padded_size(height: Dimension, width: Dimension) -> tuple[Dimension, Dimension]:
  """What the networks fill frames of this size up to, px."""
  return tuple((length + MULTIPLE - 1) // MULTIPLE * MULTIPLE for length in (height, width))


def reduced_size(height: Dimension, width: Dimension, side: int) -> tuple[Dimension, Dimension]:
  """Of the arrays that hold frames of this padded size once the longer side of these is reduced to `side` px."""
  # The largest that frames are of which the last MULTIPLE - 1 px may be empty.
  longest = jax.core.max_dim(jax.core.max_dim(height, width) - MULTIPLE + 1, side)
  rounded = ((2 * side * length + longest) // (2 * longest) for length in (height, width))
  return padded_size(*(jax.core.min_dim(jax.core.max_dim(length, 1), side) for length in rounded))


def padding_widths(height: Dimension, width: Dimension) -> tuple[tuple[Dimension, Dimension], ...]:
  """For `pad` of images [B, N, H, W, 3] to their `padded_size`."""
  bottom, right = padded_size(height, width)
  return (0, 0), (0, 0), (0, bottom - height), (0, right - width), (0, 0)


def variable_shapes(model: nn.Module) -> dict:
  """Shapes and types of the variables {'params', 'batch_stats'}; they do not depend on frames, height or width."""

  def init():
    images, focus = jnp.zeros((1, 2, MULTIPLE, MULTIPLE, 3)), jnp.zeros((1, 2))
    return model.init(jax.random.key(0), FocalStack(images, focus, fov=jnp.ones((1, 2))))

  return jax.eval_shape(init)


def init_variables(model: nn.Module, seed: int) -> dict:
  """Random variables, each tensor by seed and name, from `model.draw` or else `draw_variable`.

  In NumPy: compiling `model.init` takes a minute on two cores.
  """
  draw, variables = getattr(model, 'draw', draw_variable), {}
  leaves = flax.traverse_util.flatten_dict(variable_shapes(model))
  for key, leaf in leaves.items():
    rng = np.random.default_rng([seed, zlib.crc32('/'.join(key).encode())])
    kernel = leaves.get((*key[:-1], 'kernel'))
    value = draw(rng, key[1:], leaf.shape, None if kernel is None else kernel.shape)
    variables[key] = jnp.asarray(np.asarray(value, leaf.dtype))  # JAX would compile a conversion for each shape
  return flax.traverse_util.unflatten_dict(variables)


def draw_variable(
  rng: np.random.Generator, path: tuple[str, ...], shape: tuple[int, ...], kernel: tuple[int, ...] | None
) -> np.ndarray:
  """PyTorch's default of a kernel [.., in, out], U(+-1 / sqrt(fan_in)); of the rest, what changes nothing: 1 or 0.

  Args:
    path: names of the modules that lead to the variable, and its own.
    shape: of the variable.
    kernel: shape of the kernel in the same module, where there is one.
  """
  if path[-1] == 'kernel':
    bound = np.prod(shape[:-1]) ** -0.5
    return rng.uniform(-bound, bound, shape)
  return np.full(shape, float(path[-1] in ('scale', 'var')))
