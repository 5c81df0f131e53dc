"""A focal stack as it comes from a camera to a `Prediction`: padding, alignment, depth."""

import zlib
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax import warp
from focal_jax.models.alignment import AlignmentNetwork, MetadataAlignment, NoAlignment
from focal_jax.models.blocks import (
  AttentionDetection,
  EffectiveDownsampling,
  NoDetection,
  PlaneDetection,
  PooledDownsampling,
  SharpRegionDetection,
  StridedDownsampling,
)
from focal_jax.models.curves import CurveNetwork
from focal_jax.models.depth import MULTIPLE, DepthNetwork
from focal_jax.stack import FocalStack, Prediction, confidence_from_spread

Dimension = Any  # of an array: an integer, or in an export the symbol of any


class EndToEnd(nn.Module):
  """Alignment network, warp, depth network.

  Attributes:
    channels: channel order that the weights expect. Stack and prediction are RGB in any case.
    padding: what fills up height and width to multiples of 32, at the bottom and right: 'black', as published, or
      'edge'.
    motion_side_px: longer side to which frames are reduced before their motion is estimated; 0: not at all, as
      published. A network trained on small crops knows no large displacements.
    axis_name: devices over which batch normalisation averages in training.
    alignment_network: module made with (axis_name, remat) that is called as `AlignmentNetwork` is.
    detect, downsample: blocks of the depth network; see there.
    dtype: in which the networks compute, float32 or bfloat16. Parameters, geometry, what becomes of the scores and
      everything in the prediction are float32.
    remat: compute the activations of each block anew in the backward pass, for less memory.
    motion_passes: how often the motion is estimated, from the second time on of frames warped by what was found
      before; 1 as published.
    stem_dilation: of the depth network's first layer; see there.
    focus_measures: whether the depth network is given them beside the frames; see there.
    depth_network: 'published' (`depth.DepthNetwork`), to which the fields from `detect` to `focus_measures` belong, or
      'curves' (`curves.CurveNetwork`).
    resampling: of the frames that the depth network is given: 'linear', as published, or 'lanczos' (`warp.warp_sharp`).
      What is handed out as aligned is linear in any case.
  """

  channels: Literal['RGB', 'BGR'] = 'RGB'
  padding: Literal['edge', 'black'] = 'edge'
  motion_side_px: int = 0
  axis_name: str | None = None
  alignment_network: Callable[..., nn.Module] = AlignmentNetwork
  detect: Callable[..., nn.Module] = SharpRegionDetection
  downsample: Callable[..., nn.Module] = EffectiveDownsampling
  dtype: Any = jnp.float32
  remat: bool = False
  motion_passes: int = 1
  stem_dilation: int = 2
  focus_measures: bool = False
  depth_network: Literal['published', 'curves'] = 'published'
  resampling: Literal['linear', 'lanczos'] = 'linear'

  def setup(self):
    self.alignment = self.alignment_network(axis_name=self.axis_name, remat=self.remat)
    if self.depth_network == 'curves':
      self.depth = CurveNetwork(self.remat)
    else:
      self.depth = DepthNetwork(
        self.axis_name, self.detect, self.downsample, self.remat, self.stem_dilation, self.focus_measures
      )

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
      train: batch statistics in place of running averages.
      size: height and width of what holds the frames, at the top left of `images`; the rest of the prediction is of no
        meaning. Integers, or arrays, so that frames of many sizes in arrays of one (`padded_size`) are predicted by
        what was compiled once. None: all of it.
      motion: that is undone in place of an estimated one.
    """
    height, width = stack.images.shape[2:4]
    size = size or (height, width)
    images = self._pad(self._to_network(stack.images), size)
    if align:
      motion = self.estimate_motion(stack, train=train, size=size) if motion is None else motion
      given, images = images, self._fill(warp.warp(images, stack.fov, motion, size), size)
      coverage = warp.coverage(stack.fov, motion, *images.shape[2:4], size)[..., :height, :width]
      seen = images
      if self.resampling == 'lanczos':
        seen = self._fill(jnp.clip(warp.warp_sharp(given, stack.fov, motion, size), -1.0, 1.0), size)
    else:
      seen, motion = images, jnp.zeros((*stack.fov.shape, 3), images.dtype)
      coverage = jnp.ones(stack.images.shape[:-1], images.dtype)
    pyramid, weights = self.depth(seen.astype(self.dtype), stack.focus, train=train)
    pyramid = tuple(depth[:, :height, :width] for depth in pyramid)
    weights = weights[..., :height, :width]
    return Prediction(
      depth=pyramid[-1],
      confidence=confidence_from_spread(weights, stack.focus),
      pyramid=pyramid,
      weights=weights,
      aligned=self._from_network(images[:, :, :height, :width]),
      coverage=coverage,
      motion=motion,
    )

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
    motion = self.alignment(images.astype(self.dtype), stack.fov, size=size, train=train)
    for _ in range(1, self.motion_passes):
      # Field of view 1: what metadata say of it is undone already.
      warped = self._fill(warp.warp(images, stack.fov, motion, size), size).astype(self.dtype)
      found = self.alignment(warped, jnp.ones_like(stack.fov), size=size, train=train)
      motion = warp.compose_motion(stack.fov, motion, found, size)
    return motion * jnp.stack([1.0, given[1] / size[1], given[0] / size[0]])  # a zoom has no unit, a shift is in px

  def _to_network(self, images):
    return 2.0 * (images if self.channels == 'RGB' else images[..., ::-1]) - 1.0

  def _from_network(self, images):
    return (images if self.channels == 'RGB' else images[..., ::-1]) / 2.0 + 0.5

  def _pad(self, images, size):
    """To multiples of MULTIPLE, at the bottom and right; all that is beyond `size` is filled up."""
    return self._fill(jnp.pad(images, padding_widths(*images.shape[2:4])), size)

  def _fill(self, images, size):
    for axis, end in zip((2, 3), size, strict=True):
      length = images.shape[axis]
      if isinstance(end, int) and end == length:
        continue
      inside = (jnp.arange(length) < end).reshape(-1, *(1,) * (4 - axis))
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


_ALIGNMENT = {'learned': AlignmentNetwork, 'metadata': MetadataAlignment, 'none': NoAlignment}
_DETECTION = {
  'both': SharpRegionDetection,
  'plane': PlaneDetection,
  'attention': AttentionDetection,
  'none': NoDetection,
}
_DOWNSAMPLING = {'both': EffectiveDownsampling, 'stride': StridedDownsampling, 'pooling': PooledDownsampling}


def make_end_to_end(
  channels: Literal['RGB', 'BGR'] = 'RGB',
  padding: Literal['edge', 'black'] = 'edge',
  motion_side_px: int = 0,
  motion_passes: Literal[1, 2, 3] = 1,
  stem_dilation: Literal[1, 2] = 2,
  focus_measures: bool = False,
  depth: Literal['published', 'curves'] = 'published',
  resampling: Literal['linear', 'lanczos'] = 'linear',
  alignment: Literal['learned', 'metadata', 'none'] = 'learned',
  detection: Literal['both', 'plane', 'attention', 'none'] = 'both',
  downsampling: Literal['both', 'stride', 'pooling'] = 'both',
  **runtime: Any,
) -> EndToEnd:
  """The network, or an ablation of it, by the names of its parts; see `registry`."""
  return EndToEnd(
    channels=channels,
    padding=padding,
    motion_side_px=motion_side_px,
    motion_passes=motion_passes,
    stem_dilation=stem_dilation,
    focus_measures=focus_measures,
    depth_network=depth,
    resampling=resampling,
    alignment_network=_ALIGNMENT[alignment],
    detect=_DETECTION[detection],
    downsample=_DOWNSAMPLING[downsampling],
    **runtime,
  )


def variable_shapes(model: nn.Module) -> dict:
  """Shapes and types of the variables {'params', 'batch_stats'}; they do not depend on frames, height or width."""
  example = FocalStack(images=jnp.zeros((1, 2, MULTIPLE, MULTIPLE, 3)), focus=jnp.zeros((1, 2)), fov=jnp.ones((1, 2)))
  return jax.eval_shape(lambda: model.init(jax.random.key(0), example))


def init_variables(model: nn.Module, seed: int) -> dict:
  """Random variables, from the distributions of `model.init`, each tensor by seed and name.

  In numpy: compiling `model.init` takes a minute on two cores.
  """
  variables = {}
  for key, leaf in flax.traverse_util.flatten_dict(variable_shapes(model)).items():
    if key[-1] == 'kernel':
      rng = np.random.default_rng([seed, zlib.crc32('/'.join(key).encode())])
      bound = np.prod(leaf.shape[:-1]) ** -0.5
      value = rng.uniform(-bound, bound, leaf.shape)
    else:
      value = np.full(leaf.shape, float(key[-1] in ('scale', 'var')))
    variables[key] = jnp.asarray(value, leaf.dtype)
  return flax.traverse_util.unflatten_dict(variables)
