"""Building blocks of the networks: convolutions with parameters, batch normalisation, and the two blocks of the paper.

Inputs and outputs are [B, N, H, W, C]. The blocks are those of the published network of Won and Jeon (ECCV 2022), or
omit a part of them for ablations. They compute in the floating-point type of their input; parameters and statistics are
float32.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.models import conv

Stack = Float[Array, 'B N _ _ _']  # anonymous axes, because H, W and C differ between input and result

# PyTorch's default for convolutions, U(+-1 / sqrt(fan_in)), whose variance is 1 / (3 fan_in). `init_variables` of
# `end_to_end` draws the same without compiling.
kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
CUBE, PLANE, POINT = (3, 3, 3), (1, 3, 3), (1, 1, 1)


class Conv(nn.Module):
  """Convolution with kernel (frames, height, width); see `conv.conv`."""

  features: int
  kernel_size: tuple[int, int, int] = CUBE
  stride: int = 1
  dilation: int = 1
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Stack) -> Stack:
    kernel = self.param('kernel', kernel_init, (*self.kernel_size, x.shape[-1], self.features))
    y = conv.conv(x, kernel.astype(x.dtype), stride=self.stride, dilation=self.dilation)
    if self.use_bias:
      y += self.param('bias', nn.initializers.zeros, (self.features,)).astype(x.dtype)
    return y


class ConvTranspose(nn.Module):
  """Transposed convolution that doubles height and width; see `conv.conv_transpose`."""

  features: int
  kernel_size: tuple[int, int, int] = CUBE
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Stack) -> Stack:
    kernel = self.param('kernel', kernel_init, (*self.kernel_size, x.shape[-1], self.features))
    y = conv.conv_transpose(x, kernel.astype(x.dtype))
    if self.use_bias:
      y += self.param('bias', nn.initializers.zeros, (self.features,)).astype(x.dtype)
    return y


class ConvNorm(nn.Module):
  """Convolution, then batch normalisation over batch, frames, height and width.

  `transpose`: use a transposed convolution. In training the normalisation averages over the devices of `axis_name`. A
  bias before normalisation has no effect; some published networks have one.
  """

  features: int
  kernel_size: tuple[int, int, int] = CUBE
  stride: int = 1
  dilation: int = 1
  transpose: bool = False
  axis_name: str | None = None
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    if self.transpose:
      x = ConvTranspose(self.features, self.kernel_size, self.use_bias, name='conv')(x)
    else:
      x = Conv(self.features, self.kernel_size, self.stride, self.dilation, self.use_bias, name='conv')(x)
    return batch_norm(x, self.axis_name, train)


def batch_norm(x: Stack, axis_name: str | None, train: bool) -> Stack:
  """Batch normalisation in the module that calls it, named 'norm'."""
  # Momentum and epsilon are PyTorch's defaults (its momentum 0.1 is 0.9 here). Statistics are float32 in any case;
  # `dtype` is that of the result.
  norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=x.dtype, axis_name=axis_name, name='norm')
  return norm(x, use_running_average=not train)


def apply_block(block: nn.Module, *arrays: Any, remat: bool, **options: Any) -> Any:
  """Calls block(*arrays, **options); with `remat` the backward pass recomputes its activations instead of storing them.

  `options` (train, sizes) are not traced.
  """
  if not remat:
    return block(*arrays, **options)
  return nn.remat(lambda block, *arrays: block(*arrays, **options))(block, *arrays)


# The parts of the two blocks are functions, not modules: their layers belong to the calling module, so that parameter
# names do not depend on which parts an ablation has.


def _plane(x: Stack, features: int, axis_name: str | None, train: bool) -> Stack:
  """2-D residual block for every frame."""
  y = nn.relu(ConvNorm(features, PLANE, axis_name=axis_name, name='plane1')(x, train=train))
  return nn.relu(x + ConvNorm(features, PLANE, axis_name=axis_name, name='plane2')(y, train=train))


def _attention(x: Stack, features: int) -> Stack:
  """Adds attention across neighbouring frames."""
  attention = nn.relu(Conv(features, (3, 1, 1), name='attention1')(x))
  return x + nn.relu(Conv(features, POINT, name='attention2')(attention))


def _strided(x: Stack, features: int, axis_name: str | None, train: bool) -> Stack:
  return ConvNorm(features, stride=2, axis_name=axis_name, name='strided')(x, train=train)


def _pooled(x: Stack, features: int, axis_name: str | None, train: bool) -> Stack:
  return ConvNorm(features, axis_name=axis_name, name='pooled')(conv.max_pool(x), train=train)


class SharpRegionDetection(nn.Module):
  """SRD (section 3.2): a 2-D residual block for every frame, then attention across neighbouring frames."""

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    return _attention(_plane(x, self.features, self.axis_name, train), self.features)


class PlaneDetection(nn.Module):
  """SRD without its attention."""

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    return _plane(x, self.features, self.axis_name, train)


class AttentionDetection(nn.Module):
  """SRD without its 2-D block."""

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    return _attention(x, self.features)


class NoDetection(nn.Module):
  """SRD without both parts: the identity."""

  features: int
  axis_name: str | None = None

  def __call__(self, x: Stack, *, train: bool) -> Stack:
    return x


class EffectiveDownsampling(nn.Module):
  """EFD (section 3.2): the sum of a strided convolution and a convolution of the max-pooled stack, at half height and
  width.
  """

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    parts = (self.features, self.axis_name, train)
    return nn.relu(_strided(x, *parts) + _pooled(x, *parts))


class StridedDownsampling(nn.Module):
  """EFD's strided convolution alone."""

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    return nn.relu(_strided(x, self.features, self.axis_name, train))


class PooledDownsampling(nn.Module):
  """EFD's convolution of the max-pooled stack alone."""

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    return nn.relu(_pooled(x, self.features, self.axis_name, train))


def double_nearest(x: Stack) -> Stack:
  """Doubles height and width by repeating each pixel."""
  b, n, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, :, None, :, None], (b, n, h, 2, w, 2, c))
  return x.reshape(b, n, 2 * h, 2 * w, c)


def double_linear(x: Stack) -> Stack:
  """Doubles height and width: bilinear, half-pixel centres."""
  b, n, h, w, c = x.shape
  return jax.image.resize(x, (b, n, 2 * h, 2 * w, c), 'bilinear')


def upsample(scores: Float[Array, 'B N h w'], height: int, width: int) -> Float[Array, 'B N H W']:
  """Bilinear upsampling, half-pixel centres (align-corners false). In float32, because depth needs the precision from
  here on.
  """
  return jax.image.resize(scores.astype(jnp.float32), (*scores.shape[:2], height, width), 'bilinear')


def focus_distribution(scores: Float[Array, 'B N H W']) -> Float[Array, 'B N H W']:
  """Softplus of the scores, normalised over the frames. The epsilon avoids 0 / 0 where no frame responds."""
  weights = nn.softplus(scores) + 1e-6
  return weights / jnp.sum(weights, axis=1, keepdims=True)


def expected_focus(weights: Float[Array, 'B N H W'], focus: Float[Array, 'B N']) -> Float[Array, 'B H W']:
  """Depth: the mean of the focus coordinates under the focus distribution."""
  return jnp.sum(weights * focus[:, :, None, None], axis=1)
