"""The form of `conv` for TPUs: neighbouring columns in the channels.

A TPU stores the channels of an array in 128 lanes and multiplies matrices of 128 x 128, so a layer of 8 channels takes
16 times its memory and leaves most of the multipliers idle. Here G neighbouring columns become channels,
[.., W, C] -> [.., W / G, G C], with G C = 128 where the width allows it, and the kernel becomes a banded one over
groups of columns, [.., taps, G C, G O], most of whose values are zero. The parameters are those of the other forms.
XLA counts five times the operations of the native form for a prediction, and expects half the cycles.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Stack = Float[Array, 'B N _ _ _']
Kernel = Float[Array, 'D K K I O']

LANES = 128
_VOLUME = ('NDHWC', 'DHWIO', 'NDHWC')


def conv(x: Stack, kernel: Kernel, *, stride: int, dilation: int) -> Stack:
  """As `conv.conv`."""
  width, (frames, size, _, inputs, features) = x.shape[3], kernel.shape
  columns = columns_at_once(width, stride * inputs, features, stride)
  reach = (size - 1) // 2 * dilation
  # Column `out` of a group of the result reads, through tap k, this column, counted from the group's first one.
  reads = stride * np.arange(columns)[:, None] + dilation * np.arange(size) - reach
  packed, first, last = _packed_kernel(kernel, reads, stride * columns)
  padding = [((frames - 1) // 2,) * 2, (reach, reach), (-first, last)]
  y = lax.conv_general_dilated(
    _packed(x, stride * columns),
    packed,
    (1, stride, 1),
    padding,
    rhs_dilation=(1, dilation, 1),
    dimension_numbers=_VOLUME,
  )
  return _unpacked(y, features)


def conv_transpose(x: Stack, kernel: Kernel) -> Stack:
  """As `conv.conv_transpose`."""
  width, (_, size, _, inputs, features) = x.shape[3], kernel.shape
  columns = columns_at_once(width, inputs, 2 * features, 1)
  # y[2i - 1 + k] += w[k] x[i]: every other tap meets a column.
  twice = np.arange(2 * columns)[:, None] + 1 - np.arange(size)
  reads = np.where(twice % 2 == 0, twice // 2, _NOTHING)
  packed, first, last = _packed_kernel(kernel[::-1, ::-1], reads, columns)
  padding = [(1, 1), (size - 2, 2), (-first, last)]
  y = lax.conv_general_dilated(
    _packed(x, columns), packed, (1, 1, 1), padding, lhs_dilation=(1, 2, 1), dimension_numbers=_VOLUME
  )
  return _unpacked(y, features)


def columns_at_once(width: int, inputs: int, features: int, stride: int) -> int:
  """How many columns become channels, a power of two: so many that neither input nor result has more than 128 channels,
  and that divide the width.

  Args:
    width: of the input.
    inputs, features: channels that a column of the narrower of input and result has in either.
    stride: width of the input over that of the narrower.
  """
  columns = 1
  while 2 * columns * max(inputs, features) <= LANES and width % (2 * columns * stride) == 0:
    columns *= 2
  return columns


_NOTHING = -(2**16)  # a tap that reads no column


def _packed_kernel(kernel: Kernel, reads: np.ndarray, columns: int) -> tuple[Float[Array, 'D K T J P'], int, int]:
  """The banded kernel, and the first and last group of columns that it reads, counted from that of the result.

  Args:
    reads: [columns of a group of the result, taps]: the input's column.
    columns: of a group of the input.
  """
  read = reads[reads != _NOTHING]
  first, last = int(read.min()) // columns, int(read.max()) // columns
  inside = np.arange(first * columns, (last + 1) * columns)
  if columns == len(reads) == 1 and np.array_equal(inside, reads[0]):
    return kernel, first, last
  *_, taps, inputs, features = kernel.shape
  # Every block of the band is a tap's matrix or zero. These are chosen in the layout of the result: a product with the
  # band itself takes a TPU longer than many a convolution, and a prediction of the published network 118 Mcycles, not
  # 90, by its compiler (v5e, level O0, compiled, not run). The other product repeats the matrices along the lanes; its
  # gradient is faster than that of `tile`.
  lanes = np.tile(np.eye(features), len(reads)).astype(kernel.dtype)
  everywhere = jnp.einsum('dykio,op->dykip', kernel, lanes, precision=lax.Precision.HIGHEST)
  # Arrays of the program, not of the host: masks in full would be constants of 50 kB each.
  rows = jnp.asarray(np.repeat(inside, inputs).reshape(last - first + 1, columns * inputs, 1), jnp.int32)
  reads = jnp.asarray(np.repeat(reads, features, axis=0), jnp.int32)
  packed = 0.0
  for tap in range(taps):
    repeated = jnp.tile(everywhere[:, :, tap], (1, 1, columns, 1))[:, :, None]
    packed += jnp.where(rows == reads[:, tap], repeated, 0.0)
  return packed, first, last


def _packed(x: Stack, columns: int) -> Stack:
  b, n, h, w, c = x.shape
  return x.reshape(b, n, h, w // columns, columns * c)


def _unpacked(y: Stack, features: int) -> Stack:
  b, n, h, groups, channels = y.shape
  return y.reshape(b, n, h, groups * (channels // features), features)
