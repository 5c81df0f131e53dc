"""A focal stack as it comes from a camera to a `Prediction`: padding, alignment, depth."""

import zlib
from typing import Literal

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax import warp
from focal_jax.models.alignment import AlignmentNetwork
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
  """

  channels: Literal['RGB', 'BGR'] = 'RGB'
  padding: Literal['edge', 'black'] = 'edge'
  motion_side_px: int = 0
  axis_name: str | None = None

  def setup(self):
    self.alignment = AlignmentNetwork(axis_name=self.axis_name)
    self.depth = DepthNetwork(axis_name=self.axis_name)

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
    pyramid, weights = self.depth(images, stack.focus, train=train)
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
    motion = self.alignment(self._pad(self._to_network(images)), stack.fov, size=size, train=train)
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


def variable_shapes(model: EndToEnd) -> dict:
  """Shapes and types of the variables {'params', 'batch_stats'}; they do not depend on frames, height or width."""
  example = FocalStack(images=jnp.zeros((1, 2, MULTIPLE, MULTIPLE, 3)), focus=jnp.zeros((1, 2)), fov=jnp.ones((1, 2)))
  return jax.eval_shape(lambda: model.init(jax.random.key(0), example))


def init_variables(model: EndToEnd, seed: int) -> dict:
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
