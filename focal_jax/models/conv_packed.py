"""The form of `conv` for TPUs: neighbouring columns in the channels.

A TPU stores the channels of an array in 128 lanes and multiplies 128 x 128 matrices, so a layer with 8 channels takes
16 times its memory and leaves most multipliers idle. Here G neighbouring columns become channels, [.., W, C] -> [.., W
/ G, G C], with G C = 128 if the width allows it. The kernel becomes a banded one over groups of columns, [.., taps, G
C, G O], most of whose values are zero. The parameters are the same as in the other forms. For a prediction XLA counts
five times the operations of the native form, and estimates half the cycles.
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
  """See `conv.conv`."""
  width, (frames, size, _, inputs, features) = x.shape[3], kernel.shape
  columns = columns_per_group(width, stride * inputs, features, stride)
  reach = (size - 1) // 2 * dilation
  # The input column, relative to the group's first one, that each output column of a group reads through tap k.
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
  """See `conv.conv_transpose`."""
  width, (_, size, _, inputs, features) = x.shape[3], kernel.shape
  columns = columns_per_group(width, inputs, 2 * features, 1)
  # y[2i - 1 + k] += w[k] x[i]: only every other tap reads a column.
  twice = np.arange(2 * columns)[:, None] + 1 - np.arange(size)
  reads = np.where(twice % 2 == 0, twice // 2, _NOTHING)
  packed, first, last = _packed_kernel(kernel[::-1, ::-1], reads, columns)
  padding = [(1, 1), (size - 2, 2), (-first, last)]
  y = lax.conv_general_dilated(
    _packed(x, columns), packed, (1, 1, 1), padding, lhs_dilation=(1, 2, 1), dimension_numbers=_VOLUME
  )
  return _unpacked(y, features)


def columns_per_group(width: int, inputs: int, features: int, stride: int) -> int:
  """Number of columns that become channels: the largest power of two that divides the width and leaves input and result
  with at most 128 channels.

  Args:
    width: width of the input, px.
    inputs, features: channels per column of the narrower of input and result, in input and result.
    stride: width of the input divided by that of the narrower.
  """
  columns = 1
  while 2 * columns * max(inputs, features) <= LANES and width % (2 * columns * stride) == 0:
    columns *= 2
  return columns


_NOTHING = -(2**16)  # a tap that reads no column


def _packed_kernel(kernel: Kernel, reads: np.ndarray, columns: int) -> tuple[Float[Array, 'D K T J P'], int, int]:
  """The banded kernel, and the first and last group of input columns that it reads, relative to the output group.

  Args:
    kernel: the ordinary kernel.
    reads: [columns per output group, taps] index of the input column.
    columns: columns per input group.
  """
  read = reads[reads != _NOTHING]
  first, last = int(read.min()) // columns, int(read.max()) // columns
  inside = np.arange(first * columns, (last + 1) * columns)
  if columns == len(reads) == 1 and np.array_equal(inside, reads[0]):
    return kernel, first, last
  *_, taps, inputs, features = kernel.shape
  # Every block of the band is a tap's matrix or zero, selected in the layout of the result. A product with the band
  # itself takes a TPU longer than many convolutions: the compiler estimates 118 instead of 90 Mcycles for a prediction
  # of the published network (v5e, level O0, compiled, not run). The product with `lanes` repeats the matrices along the
  # lanes; its gradient is faster than that of `tile`.
  lanes = np.tile(np.eye(features), len(reads)).astype(kernel.dtype)
  everywhere = jnp.einsum('dykio,op->dykip', kernel, lanes, precision=lax.Precision.HIGHEST)
  # Computed in the program: as host arrays, the masks would be constants of 50 kB each.
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
