"""The complete model, from the frames of a camera to a `Prediction`: padding, alignment, depth."""

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

Dimension = Any  # of an array: an integer, or a symbolic size in an export


class EndToEnd(nn.Module):
  """Alignment network, warp, depth network.

  Attributes:
    depth: the depth network. Called with frames -1 .. 1, [B, N, H, W, 3], whose height and width are multiples of 32,
      their focus and `train`, it returns `DepthMaps`.
    alignment: the alignment network; called like `AlignmentNetwork`.
    channels: channel order that the weights expect. Stack and prediction are RGB in any case.
    padding: how frames are padded to multiples of 32 at the bottom and right: 'black', 'edge' or 'reflect' (without
      repeating the edge).
    motion_side_px: longer side to which frames are reduced for motion estimation; 0: full size, as published. A network
      trained on small crops has not seen large displacements.
    motion_passes: number of motion estimates, each after the first from frames warped by the motion found so far; 1 as
      published.
    resampling: of the frames passed to the depth network: 'linear', as published, or 'lanczos' (`warp.warp_sharp`). The
      aligned frames in the prediction are resampled linearly in any case.
    dtype: floating-point type of the networks, float32 or bfloat16. Parameters, geometry, everything computed from the
      scores, and the prediction are float32.
    precision: of the networks' convolutions and matrix products in float32: 'default', 'high' or 'highest'. By default
      TPUs multiply in bfloat16 and recent GPUs in TF32, which changes depth by 0.02 and 0.002 % of the focus range on
      average, and by 0.09 and 0.007 % at the 99th percentile (simulated by rounding on a CPU: `benchmarks.precision`).
      'default' leaves the choice to `jax.default_matmul_precision`.
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
      size: height and width of the frames within `images`, at the top left; the prediction is meaningless outside.
        Integers, or arrays, so that one compiled program predicts frames of many sizes in arrays of one
        (`padded_size`). None: all of it.
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
      all_in_focus=None if sharp is None else self._swap_channels(sharp),
      defocus=maps.defocus,
      aligned=self._from_network(images),
      coverage=coverage,
      motion=motion,
    )
    return prediction.cropped(height, width)

  def estimate_motion(
    self, stack: FocalStack, *, train: bool = False, size: warp.Size | None = None
  ) -> Float[Array, 'B N 3']:
    """Runs the alignment network alone: motion (alpha, beta, gamma) of every frame, see `warp`. `size`: as in
    `__call__`.
    """
    images, given = stack.images, size or stack.images.shape[2:4]
    padded = padded_size(*images.shape[2:4])
    size, side = given, self.motion_side_px
    longer = jax.core.max_dim(*padded)  # works for symbolic sizes too
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
      # Field of view 1: that of the metadata is already undone.
      warped = self._fill(warp.warp(images, stack.fov, motion, size), size).astype(self.dtype)
      with self._multiplying():
        found = self.alignment(warped, jnp.ones_like(stack.fov), size=size, train=train)
      motion = warp.compose_motion(stack.fov, motion, found, size)
    return motion * jnp.stack([1.0, given[1] / size[1], given[0] / size[0]])  # zoom has no unit, shifts are in px

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

  def _swap_channels(self, images):
    """Converts between RGB and the weights' channel order."""
    return images if self.channels == 'RGB' else images[..., ::-1]

  def _to_network(self, images):
    return 2.0 * self._swap_channels(images) - 1.0

  def _from_network(self, images):
    return self._swap_channels(images) / 2.0 + 0.5

  def _pad(self, images, size):
    """Pads to multiples of MULTIPLE at the bottom and right; everything beyond `size` is padding."""
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
  """Height and width to which the networks pad frames of this size, px."""
  return tuple((length + MULTIPLE - 1) // MULTIPLE * MULTIPLE for length in (height, width))


def reduced_size(height: Dimension, width: Dimension, side: int) -> tuple[Dimension, Dimension]:
  """Size of the arrays for frames of this padded size whose longer side is reduced to `side` px."""
  # The last MULTIPLE - 1 px of the padded size may be empty.
  longest = jax.core.max_dim(jax.core.max_dim(height, width) - MULTIPLE + 1, side)
  rounded = ((2 * side * length + longest) // (2 * longest) for length in (height, width))
  return padded_size(*(jax.core.min_dim(jax.core.max_dim(length, 1), side) for length in rounded))


def padding_widths(height: Dimension, width: Dimension) -> tuple[tuple[Dimension, Dimension], ...]:
  """Argument of `pad` that pads images [B, N, H, W, 3] to their `padded_size`."""
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
    variables[key] = jax.device_put(np.asarray(value, leaf.dtype))  # jnp.asarray compiles a program for each shape
  return flax.traverse_util.unflatten_dict(variables)


def draw_variable(
  rng: np.random.Generator, path: tuple[str, ...], shape: tuple[int, ...], kernel: tuple[int, ...] | None
) -> np.ndarray:
  """Initial value of a variable: PyTorch's default U(+-1 / sqrt(fan_in)) for a kernel [.., in, out]; 1 or 0 for all
  others, so that they have no effect.

  Args:
    rng: source of randomness.
    path: names of the modules that lead to the variable, and its own.
    shape: of the variable.
    kernel: shape of the kernel in the same module, if there is one.
  """
  if path[-1] == 'kernel':
    bound = np.prod(shape[:-1]) ** -0.5
    return rng.uniform(-bound, bound, shape)
  return np.full(shape, float(path[-1] in ('scale', 'var')))
