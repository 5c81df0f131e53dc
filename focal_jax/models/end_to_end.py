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
from focal_jax.models.depth import MULTIPLE, DepthNetwork
from focal_jax.stack import FocalStack, Prediction, confidence_from_spread


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

  def setup(self):
    self.alignment = self.alignment_network(axis_name=self.axis_name, remat=self.remat)
    self.depth = DepthNetwork(self.axis_name, self.detect, self.downsample, self.remat)

  def __call__(self, stack: FocalStack, *, align: bool = True, train: bool = False) -> Prediction:
    """Depth of a batch of stacks.

    Args:
      stack: images float 0 .. 1, any height and width.
      align: False skips the alignment network and the field-of-view crop.
      train: batch statistics in place of running averages.
    """
    height, width = stack.images.shape[2:4]
    images = self._pad(self._to_network(stack.images))
    if align:
      motion = self.estimate_motion(stack, train=train)
      images = warp.warp(images, stack.fov, motion, (height, width))
      coverage = warp.coverage(stack.fov, motion, height, width)
      images = self._pad(images[:, :, :height, :width])
    else:
      motion = jnp.zeros((*stack.fov.shape, 3), images.dtype)
      coverage = jnp.ones(stack.images.shape[:-1], images.dtype)
    pyramid, weights = self.depth(images.astype(self.dtype), stack.focus, train=train)
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

  def estimate_motion(self, stack: FocalStack, *, train: bool = False) -> Float[Array, 'B N 3']:
    """The alignment network alone: motion (alpha, beta, gamma) of every frame; see `warp`."""
    images, (height, width) = stack.images, stack.images.shape[2:4]
    scale = self.motion_side_px / max(height, width)
    if 0 < scale < 1:
      small = (max(round(scale * height), 1), max(round(scale * width), 1))
      images = jax.image.resize(images, (*images.shape[:2], *small, 3), 'linear')
    size = images.shape[2:4]
    images = self._pad(self._to_network(images)).astype(self.dtype)
    motion = self.alignment(images, stack.fov, size=size, train=train)
    return motion * jnp.array([1.0, width / size[1], height / size[0]])  # a zoom has no unit, a shift is in px

  def _to_network(self, images):
    return 2.0 * (images if self.channels == 'RGB' else images[..., ::-1]) - 1.0

  def _from_network(self, images):
    return (images if self.channels == 'RGB' else images[..., ::-1]) / 2.0 + 0.5

  def _pad(self, images):
    bottom, right = -images.shape[2] % MULTIPLE, -images.shape[3] % MULTIPLE
    widths = ((0, 0), (0, 0), (0, bottom), (0, right), (0, 0))
    if self.padding == 'edge':
      return jnp.pad(images, widths, mode='edge')
    return jnp.pad(images, widths, constant_values=-1.0)


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
