"""The form of `conv` for CPUs: two-dimensional convolutions with the frames in the batch.

XLA's CPU backend computes 3-D convolutions 3 to 12 times slower, and transposed ones 80 times slower. A kernel over
three frames becomes one convolution with three times the output channels, which are shifted along the frames and added.
Weight gradients are matrix products.

Operations whose transpose differs from JAX's are primitives (`jax.extend`). They have no other rules, because `conv`
only transposes these functions and never differentiates them.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array, Float

from focal_jax.primitives import primitive

# Anonymous axes, because height, width and channels differ between input and result.
Stack = Float[Array, 'B N _ _ _']
Planes = Float[Array, '_ _ _ _']
Kernel = Float[Array, 'D K K I O']
PlaneKernel = Float[Array, 'K K I O']

_PLANE = ('NHWC', 'HWIO', 'NHWC')


def conv(x: Stack, kernel: Kernel, *, stride: int, dilation: int) -> Stack:
  """See `conv.conv`."""
  if kernel.shape[0] > 1:
    return _conv_planes(x, kernel, stride)
  if dilation == 2:
    return _conv_phases(x, kernel)
  if kernel.shape[1] == 1:  # a 1 x 1 kernel reads only every `stride`-th pixel
    x, stride = x[:, :, ::stride, ::stride], 1
  y = _conv_plane(_fold(x), kernel[0], stride, ((kernel.shape[1] - 1) // 2,) * 2)
  return y.reshape(*x.shape[:2], *y.shape[1:])


def conv_transpose(x: Stack, kernel: Kernel) -> Stack:
  """See `conv.conv_transpose`. One convolution of each frame and its neighbours, concatenated along the channels.

  The result has four times as many pixels as the input, so shifting the input is faster: 1.6 to 2.6 times, with
  gradients.
  """
  b, n, h, w, _ = x.shape
  # y[n - 1 + f] += w[f] x[n]: shifts frames in the opposite direction to a convolution.
  frames = jnp.concatenate([_advance(x), x, _delay(x)], axis=-1)
  dense = _phases_of(jnp.concatenate(list(kernel), axis=2))
  y = _conv_plane(_fold(frames), dense, 1, (dense.shape[0] - 2, 1))
  return _interleave(y.reshape(b, n, h, w, -1))


def _fold(x: Stack) -> Planes:
  return x.reshape(-1, *x.shape[2:])


def _conv_plane(x: Planes, kernel: PlaneKernel, stride: int, padding: tuple[int, int]) -> Planes:
  """2-D convolution with the same padding (before, after) on both axes."""
  return _conv_plane_p.bind(x, kernel, stride=stride, padding=padding)


def _wide(x: Planes, kernel: PlaneKernel, *, stride: int, padding: tuple[int, int]) -> Planes:
  columns = _columns_at_once(x.shape, kernel.shape) if stride == 1 else 1
  if columns == 1:
    return _plain(x, kernel, stride, padding)
  # Computes neighbouring output columns as channels of a wider kernel, with a stride of as many columns. XLA copies the
  # pixels under the kernel for each of its positions, and this gives fewer positions: three times as fast for 3
  # channels.
  wide = jnp.concatenate(
    [jnp.pad(kernel, ((0, 0), (k, columns - 1 - k), (0, 0), (0, 0))) for k in range(columns)], axis=-1
  )
  y = lax.conv_general_dilated(x, wide, (1, columns), (padding, padding), dimension_numbers=_PLANE)
  return y.reshape(*y.shape[:2], columns * y.shape[2], -1)


def _columns_at_once(shape: tuple[int, ...], kernel: tuple[int, ...]) -> int:
  """Number of output columns to compute together; more columns waste more work on zeros of the kernel."""
  columns = 8 if kernel[2] <= 4 else 2
  return columns if kernel[1] > 1 and kernel[3] <= 8 and shape[2] % columns == 0 else 1


def _plain(x: Planes, kernel: PlaneKernel, stride: int, padding: tuple[int, int]) -> Planes:
  return lax.conv_general_dilated(x, kernel, (stride, stride), (padding, padding), dimension_numbers=_PLANE)


def _to_input(cotangent, x, kernel, *, stride, padding):
  """Transpose with respect to x, of which only the shape is known."""
  if stride == 1:
    before, after = (kernel.shape[0] - 1 - p for p in padding)
    return _wide(cotangent, kernel[::-1, ::-1].swapaxes(2, 3), stride=1, padding=(before, after))
  if stride == 2 and kernel.shape[0] == 3:
    # Dense over the four phases: two to three times as fast as XLA's dilated form.
    return _interleave(_plain(cotangent, _phases_of(kernel.swapaxes(2, 3)), 1, (0, 1)))
  return jax.linear_transpose(lambda x: _plain(x, kernel, stride, padding), _shape(x))(cotangent)[0]


def _to_kernel(cotangent, x, kernel, *, stride, padding):
  """Transpose with respect to the kernel, of which only the shape is known."""
  x, cotangent = _stored(x, cotangent)
  return jax.linear_transpose(lambda kernel: _plain(x, kernel, stride, padding), _shape(kernel))(cotangent)[0]


def _shape(unknown):
  return jax.ShapeDtypeStruct(unknown.aval.shape, unknown.aval.dtype)


_conv_plane_p = primitive('conv_plane', _wide)
ad.defbilinear(_conv_plane_p, _to_input, _to_kernel)


def _stored(*arrays: Planes) -> tuple[Planes, ...]:
  """Forces arrays to be stored in memory before they are used.

  For a weight gradient XLA's CPU backend reads pixels in a different order from memory, and would recompute the
  preceding operations (normalisation, activation) in that order, which takes three times as long. It does not fuse
  across a loop, even one that never runs, unless it knows so at compile time. It ignores optimisation barriers.
  """
  one = arrays[-1][0, 0, 0, 0]
  never = jnp.isnan(one) & ~jnp.isnan(one + 1)
  return lax.while_loop(lambda state: state[1], lambda state: (tuple(-x for x in state[0]), False), (arrays, never))[0]


def _phases_of(kernel: PlaneKernel) -> Float[Array, 'T T I P']:
  """Dense kernel of the transposed convolution y[2i - 1 + k] += w[k] x[i] with a kernel of 3 x 3 or 4 x 4, stride 2.

  Per axis y[2j] = w1 x[j] and y[2j + 1] = w2 x[j] + w0 x[j + 1]; with 4 taps y[2j] also has w3 x[j - 1]. So each phase
  has two or three taps, padded by (0, 1) or (1, 1). Channels of the result are (row phase, column phase, out), for
  `_interleave`.
  """
  length = kernel.shape[0]
  taps = jnp.zeros((2, length - 1, length), kernel.dtype)  # phase, tap, k
  here = length - 3  # the tap of x[j]
  taps = taps.at[0, here, 1].set(1).at[1, here, 2].set(1).at[1, here + 1, 0].set(1)
  if length == 4:
    taps = taps.at[0, 0, 3].set(1)
  dense = jnp.einsum('atk,bsl,klio->tsiabo', taps, taps, kernel, precision=lax.Precision.HIGHEST)
  return dense.reshape(length - 1, length - 1, kernel.shape[2], -1)


def _interleave(y: Float[Array, '*B h w P']) -> Float[Array, '*B H W O']:
  """Moves the pixels of the four phases from the channels to their positions."""
  *batch, h, w, _ = y.shape
  y = y.reshape(*batch, h, w, 2, 2, -1)
  return jnp.moveaxis(y, -3, -4).reshape(*batch, 2 * h, 2 * w, -1)


def _conv_phases(x: Stack, kernel: Kernel) -> Stack:
  """Dilation 2 as dense convolutions of the four phases (even and odd rows and columns): 134 instead of 366 ms for the
  stem.
  """
  b, n, h, w, c = x.shape
  phases = x.reshape(b * n, h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 1, 3, 5).reshape(-1, h // 2, w // 2, c)
  y = _conv_plane(phases, kernel[0], 1, ((kernel.shape[1] - 1) // 2,) * 2).reshape(b * n, 2, 2, h // 2, w // 2, -1)
  return y.transpose(0, 3, 1, 4, 2, 5).reshape(b, n, h, w, -1)


def _delay(x: Stack) -> Stack:
  """out[n] = x[n - 1]. Concatenated instead of padded: a CPU adds that eight times faster."""
  return jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def _advance(x: Stack) -> Stack:
  """out[n] = x[n + 1]."""
  return jnp.concatenate([x[:, 1:], jnp.zeros_like(x[:, :1])], axis=1)


def _conv_planes(x: Stack, kernel: Kernel, stride: int) -> Stack:
  """One convolution for all frames of the kernel; its outputs are shifted along the frames and added."""
  if kernel.shape[0] == 3:
    return _conv_cube_p.bind(x, kernel, stride=stride)
  parts, frames = _convolve_by_frame(x, kernel, stride), kernel.shape[0]
  return sum(_shift_frames(parts[..., n, :], n - frames // 2) for n in range(frames))


def _convolve_by_frame(x: Stack, kernel: Kernel, stride: int) -> Float[Array, 'B N H W D O']:
  """The product of each frame of the kernel with each frame of the stack."""
  frames, size = kernel.shape[:2]
  flat = jnp.moveaxis(kernel, 0, 3).reshape(size, size, x.shape[-1], -1)
  y = _conv_plane(_fold(x), flat, stride, ((size - 1) // 2,) * 2)
  return y.reshape(*x.shape[:2], *y.shape[1:3], frames, -1)


def _cube(x: Stack, kernel: Kernel, *, stride: int) -> Stack:
  parts = _convolve_by_frame(x, kernel, stride)
  return _delay(parts[..., 0, :]) + parts[..., 1, :] + _advance(parts[..., 2, :])


def _cube_to_input(cotangent, x, kernel, *, stride):
  swapped = kernel.swapaxes(3, 4)
  if stride == 1:  # shifts results instead of frames: less to copy, wider matrix products
    return _cube(cotangent, swapped[::-1, ::-1, ::-1], stride=1)
  if kernel.shape[1] == 3:
    return conv_transpose(cotangent, swapped)
  return jax.linear_transpose(lambda x: _cube(x, kernel, stride=stride), _shape(x))(cotangent)[0]


def _cube_to_kernel(cotangent, x, kernel, *, stride):
  size, (b, n) = kernel.aval.shape[1], x.shape[:2]
  # Stored before it is repeated for each frame of the kernel: a third of the memory traffic.
  x, cotangent = _stored(_fold(x), _fold(cotangent))
  cotangent = cotangent.reshape(b, n, *cotangent.shape[1:])
  spread = jnp.concatenate([_advance(cotangent), cotangent, _delay(cotangent)], axis=-1)
  flat = jax.ShapeDtypeStruct((size, size, x.shape[-1], spread.shape[-1]), x.dtype)
  plain = lambda kernel: _plain(x, kernel, stride, ((size - 1) // 2,) * 2)  # noqa: E731
  gradient = jax.linear_transpose(plain, flat)(_fold(spread))[0]
  return jnp.moveaxis(gradient.reshape(size, size, x.shape[-1], 3, -1), 3, 0)


_conv_cube_p = primitive('conv_cube', _cube)
ad.defbilinear(_conv_cube_p, _cube_to_input, _cube_to_kernel)


def _shift_frames(x: Stack, places: int) -> Stack:
  """out[n] = x[n + places]."""
  for _ in range(min(abs(places), x.shape[1])):
    x = _advance(x) if places > 0 else _delay(x)
  return x
