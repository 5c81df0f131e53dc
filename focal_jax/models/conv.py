"""Convolutions over focal stacks [B, N, H, W, C], in the form that the backend computes fastest.

Every convolution here is "same" in PyTorch's sense: zero padding (k - 1) / 2 x dilation on both sides of every axis, at
stride 2 too (JAX's 'SAME' pads (0, 1) there). Stride and dilation are spatial; frames have stride 1. The results do not
depend on the form and neither do the parameters. Stack, kernel and result have one floating-point type; weight
gradients are summed in float32 even where that is bfloat16:

* native: XLA's 3-D convolution. What accelerators get.
* planes: two-dimensional convolutions with the frames in the batch. XLA's CPU backend computes 3-D convolutions 3 to 12
  times slower than that, transposed ones 80 times. A kernel over three frames becomes one convolution to three times
  the output channels whose results are shifted along the frames and added; weight gradients are matrix products.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Form = Literal['native', 'planes']
# Anonymous axes: height, width and channels of a result are not those of its input.
Stack = Float[Array, 'B N _ _ _']
Planes = Float[Array, '_ _ _ _']
Kernel = Float[Array, 'D K K I O']

_PLANE = ('NHWC', 'HWIO', 'NHWC')
_VOLUME = ('NDHWC', 'DHWIO', 'NDHWC')


def default_form() -> Form:
  return 'planes' if jax.default_backend() == 'cpu' else 'native'


def conv(x: Stack, kernel: Kernel, *, stride: int = 1, dilation: int = 1, form: Form | None = None) -> Stack:
  """Convolution with a kernel [1 or 3 frames, k, k, in, out], k odd.

  Height and width must be multiples of stride and dilation (1 or 2); dilation only for kernels of one frame.
  """
  if (form or default_form()) == 'native':
    padding = [((k - 1) // 2 * d,) * 2 for k, d in zip(kernel.shape[:3], (1, dilation, dilation), strict=True)]
    return lax.conv_general_dilated(
      x, kernel, (1, stride, stride), padding, rhs_dilation=(1, dilation, dilation), dimension_numbers=_VOLUME
    )
  if kernel.shape[0] == 3:
    return _conv_planes(x, kernel, stride)
  if dilation == 2:
    return _conv_phases(x, kernel)
  y = _conv_plane(_fold(x), kernel[0], stride, ((kernel.shape[1] - 1) // 2,) * 2)
  return y.reshape(*x.shape[:2], *y.shape[1:])


def conv_transpose(x: Stack, kernel: Kernel, *, form: Form | None = None) -> Stack:
  """Transposed convolution, kernel [3, 3, 3, in, out], that doubles height and width: y[2i - 1 + k] += w[k] x[i].

  PyTorch's ConvTranspose3d with kernel 3, stride (1, 2, 2), padding 1 and output padding (0, 1, 1): the adjoint of
  `conv` with the same kernel (in and out exchanged) at stride 2.
  """
  if (form or default_form()) == 'native':
    flipped, padding = kernel[::-1, ::-1, ::-1], ((1, 1), (1, 2), (1, 2))
    return lax.conv_general_dilated(x, flipped, (1, 1, 1), padding, lhs_dilation=(1, 2, 2), dimension_numbers=_VOLUME)
  return _conv_transpose_planes(x, kernel)


def max_pool(x: Stack) -> Stack:
  """Maximum over 2 x 2 pixels, as maxima of strided slices: reduce_window's gradient is nine times slower on a CPU."""
  rows = jnp.maximum(x[:, :, ::2], x[:, :, 1::2])
  return jnp.maximum(rows[:, :, :, ::2], rows[:, :, :, 1::2])


def average_pool(x: Stack, factor: int) -> Stack:
  """Mean over factor x factor pixels."""
  b, n, h, w, c = x.shape
  return x.reshape(b, n, h // factor, factor, w // factor, factor, c).mean((3, 5))


def _fold(x: Stack) -> Planes:
  return x.reshape(-1, *x.shape[2:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_plane(x: Planes, kernel: Float[Array, 'K K I O'], stride: int, padding: tuple[int, int]) -> Planes:
  """2-D convolution, the same padding (before, after) on both axes."""
  return lax.conv_general_dilated(x, kernel, (stride, stride), (padding, padding), dimension_numbers=_PLANE)


def _conv_plane_fwd(x, kernel, stride, padding):
  return _conv_plane(x, kernel, stride, padding), (x, kernel)


def _conv_plane_bwd(stride, padding, saved, cotangent):
  x, kernel = saved
  to_input = jax.linear_transpose(
    lambda x: lax.conv_general_dilated(x, kernel, (stride, stride), (padding, padding), dimension_numbers=_PLANE), x
  )
  return to_input(cotangent)[0], _weight_gradient(x, cotangent, kernel.shape[0], stride, padding)


_conv_plane.defvjp(_conv_plane_fwd, _conv_plane_bwd)


def _weight_gradient(
  x: Planes, cotangent: Planes, size: int, stride: int, padding: tuple[int, int]
) -> Float[Array, 'K K I O']:
  """Gradient of a size x size kernel: a sum over pixels, taken as one matrix product for each image.

  XLA's own form is a convolution with an image-sized kernel. One image at a time keeps the operands in cache, and
  shifted copies side by side on the channels make the product's sides long enough to be efficient.
  """
  height, width = cotangent.shape[1:3]
  before, after = padding
  taps = range(size)

  def columns(image):
    return jnp.concatenate([image[:, k : k + stride * (width - 1) + 1 : stride] for k in taps], axis=-1)

  if stride == 1:
    # Column shifts on the input's side, row shifts (the other way round) on the cotangent's.
    x = jnp.pad(x, ((0, 0), (0, 0), padding, (0, 0)))
    cotangent = jnp.pad(cotangent, ((0, 0), (size - 1 - before, size - 1 - after), (0, 0), (0, 0)))
    rows = x.shape[1]

    def operands(image, gradient):
      shifted = [gradient[size - 1 - k : size - 1 - k + rows] for k in taps]
      return columns(image), jnp.concatenate(shifted, axis=-1)

    split = (size, x.shape[-1], size, cotangent.shape[-1])  # kx, in, ky, out
    order = (2, 0, 1, 3)
  else:
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))

    def operands(image, gradient):
      shifted = [columns(image[k : k + stride * (height - 1) + 1 : stride]) for k in taps]
      return jnp.concatenate(shifted, axis=-1), gradient

    split = (size, size, x.shape[-1], cotangent.shape[-1])
    order = (0, 1, 2, 3)

  def add(total, pair):
    left, right = (operand.reshape(-1, operand.shape[-1]) for operand in operands(*pair))
    return total + jnp.matmul(left.T, right, preferred_element_type=total.dtype), None

  zero = jnp.zeros((split[0] * split[1] * (split[2] if stride > 1 else 1), split[3] * (split[2] if stride == 1 else 1)))
  total, _ = lax.scan(add, zero, (x, cotangent))
  return total.reshape(split).transpose(order).astype(x.dtype)


def _conv_phases(x: Stack, kernel: Kernel) -> Stack:
  """Dilation 2 as dense convolutions of the four phases (even, odd rows and columns): 134 ms against 366 for the
  stem.
  """
  b, n, h, w, c = x.shape
  phases = x.reshape(b * n, h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 1, 3, 5).reshape(-1, h // 2, w // 2, c)
  y = _conv_plane(phases, kernel[0], 1, ((kernel.shape[1] - 1) // 2,) * 2).reshape(b * n, 2, 2, h // 2, w // 2, -1)
  return y.transpose(0, 3, 1, 4, 2, 5).reshape(b, n, h, w, -1)


def _add_shifted(parts: Float[Array, 'B N H W D O']) -> Stack:
  """out[n] = parts[n - 1][0] + parts[n][1] + parts[n + 1][2]; there is nothing before the first frame or after the
  last.
  """
  nothing = jnp.zeros_like(parts[:, :1, ..., 0, :])
  # Concatenated, not padded: a CPU adds that eight times faster.
  before = jnp.concatenate([nothing, parts[:, :-1, ..., 0, :]], axis=1)
  after = jnp.concatenate([parts[:, 1:, ..., 2, :], nothing], axis=1)
  return before + parts[..., 1, :] + after


def _conv_planes(x: Stack, kernel: Kernel, stride: int) -> Stack:
  """Three frames: one convolution to three times the channels, shifted along the frames and added."""
  size = kernel.shape[1]
  flat = jnp.moveaxis(kernel, 0, 3).reshape(size, size, x.shape[-1], -1)
  y = _conv_plane(_fold(x), flat, stride, ((size - 1) // 2,) * 2)
  return _add_shifted(y.reshape(*x.shape[:2], *y.shape[1:3], 3, -1))


def _conv_transpose_planes(x: Stack, kernel: Kernel) -> Stack:
  b, n, h, w, _ = x.shape
  # Per axis y[2j] = w1 x[j] and y[2j + 1] = w2 x[j] + w0 x[j + 1]: a dense kernel of two taps for either phase.
  taps = jnp.zeros((2, 2, 3), x.dtype).at[0, 0, 1].set(1).at[1, 0, 2].set(1).at[1, 1, 0].set(1)  # [phase, tap, k]
  dense = jnp.einsum('atk,bsl,fklio->tsifabo', taps, taps, kernel, precision=lax.Precision.HIGHEST)
  y = _conv_plane(_fold(x), dense.reshape(2, 2, kernel.shape[3], -1), 1, (0, 1))
  # y[n - 1 + f] += w[f] x[n]: a convolution's frame shifts, the other way round.
  y = _add_shifted(y.reshape(b, n, h, w, 3, -1)[..., ::-1, :]).reshape(b, n, h, w, 2, 2, -1)
  return y.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, n, 2 * h, 2 * w, -1)
