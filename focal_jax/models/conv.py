"""Convolutions over focal stacks [B, N, H, W, C], in the form that is fastest on the target platform.

Every convolution is "same" in PyTorch's sense: zero padding (k - 1) / 2 x dilation on both sides of every axis, at
stride 2 too (JAX's 'SAME' pads (0, 1) there). Stride and dilation are spatial; frames have stride 1. Neither results
nor parameters depend on the form. Stack, kernel and result have the same floating-point type.

* native: XLA's 3-D convolution.
* planes: two-dimensional convolutions with the frames in the batch (`conv_planes`).
* packed: 3-D convolutions with neighbouring columns in the channels (`conv_packed`).

A convolution and its transposes with respect to stack and kernel are three primitives (`jax.extend`). Each is bilinear,
and its transposes are the other two, so these three give derivatives of any order, in forward and reverse mode. The
form is chosen at lowering: a program exported on a CPU has the TPU form on TPUs.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jaxtyping import Array, Float

from focal_jax.models import conv_packed, conv_planes
from focal_jax.primitives import primitive

Form = Literal['native', 'planes', 'packed']
# Anonymous axes, because height, width and channels differ between input and result.
Stack = Float[Array, 'B N _ _ _']
Kernel = Float[Array, 'D K K I O']

# Form by platform; others use the native one. CPUs: measured, see `conv_planes`. TPUs: compiled for a v5e, not run.
# XLA's estimates for native and packed (`benchmarks.aot`, docs/compiled; float32, ten frames of 224 px):
#
#   | | native: Mcycles | temporary, GiB | packed: Mcycles | temporary, GiB |
#   | --- | ---: | ---: | ---: | ---: |
#   | prediction, network as published | 63.5 | 1.04 | 32.5 | 0.078 |
#   | step of both networks, one stack, level O0 | 1434 | 11.2 | 437 | 2.65 |
#   | layer 8 -> 8 at full resolution, with gradient | 24.2 | 0.48 | 2.5 | 0.00 |
#   | layer 64 -> 64 at 1/8, with gradient | 0.78 | 0.00 | 0.61 | 0.00 |
#
# The step was compiled at O0 only, because the default level takes too long. GPUs: not measured yet; cuDNN selects its
# algorithm on the GPU, so compiling does not tell.
FORM_ON: dict[str, Form] = {'cpu': 'planes', 'tpu': 'packed', 'cuda': 'native'}

_VOLUME = ('NDHWC', 'DHWIO', 'NDHWC')


def conv(x: Stack, kernel: Kernel, *, stride: int = 1, dilation: int = 1, form: Form | None = None) -> Stack:
  """Convolution of a stack.

  Args:
    x: the stack; height and width are multiples of stride and dilation.
    kernel: [1, 3 or a larger odd number of frames, k, k, in, out], k odd.
    stride: spatial stride, 1 or 2.
    dilation: spatial dilation, 1 or 2; 2 only for kernels of one frame.
    form: None: the platform's form (`FORM_ON`).
  """
  return _bind(_conv_p, x, kernel, stride=stride, dilation=dilation, doubles=False, form=form)


def conv_transpose(x: Stack, kernel: Kernel, *, form: Form | None = None) -> Stack:
  """Transposed convolution with a kernel [3, k, k, in, out] that doubles height and width: y[2i - 1 + k] += w[k] x[i].

  Equals PyTorch's ConvTranspose3d with stride (1, 2, 2), padding 1 and output padding (0, 1, 1) for k = 3, or none for
  k = 4. With k = 3 it is the adjoint of `conv` with the same kernel (in and out exchanged) at stride 2. `form` as in
  `conv`.
  """
  return _bind(_conv_p, x, kernel, stride=1, dilation=1, doubles=True, form=form)


def max_pool(x: Stack) -> Stack:
  """Maximum over 2 x 2 pixels, as maxima of strided slices: the gradient of reduce_window is nine times slower on a
  CPU.
  """
  rows = jnp.maximum(x[:, :, ::2], x[:, :, 1::2])
  return jnp.maximum(rows[:, :, :, ::2], rows[:, :, :, 1::2])


def max_pool3(x: Stack, *, frames: bool, stride: int) -> Stack:
  """Maximum over 3 x 3 pixels around every `stride`-th one, and over 3 frames if `frames`, ignoring what is outside.
  One axis at a time, as maxima of slices; see `max_pool`.
  """
  for axis, step in ((1, 1), (2, stride), (3, stride)):
    if axis == 1 and not frames:
      continue
    length = x.shape[axis]
    padded = jnp.pad(x, [(1, 1) if n == axis else (0, 0) for n in range(x.ndim)], constant_values=-jnp.inf)
    taps = (lax.slice_in_dim(padded, k, k + length, step, axis) for k in range(3))
    x = functools.reduce(jnp.maximum, taps)
  return x


def average_pool(x: Stack, factor: int) -> Stack:
  """Mean over factor x factor pixels."""
  b, n, h, w, c = x.shape
  return x.reshape(b, n, h // factor, factor, w // factor, factor, c).mean((3, 5))


def native_jaxpr(equation: Any) -> Any | None:
  """The jaxpr of the native computation of an equation of these primitives; None for other equations."""
  if equation.primitive not in _FUNCTIONS:
    return None
  options = {name: value for name, value in equation.params.items() if name != 'precision'} | {'form': 'native'}
  avals = (jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars)
  return jax.make_jaxpr(functools.partial(_FUNCTIONS[equation.primitive], **options))(*avals).jaxpr


def _compute(x, kernel, *, stride, dilation, doubles, form):
  if form == 'planes':
    return (
      conv_planes.conv_transpose(x, kernel)
      if doubles
      else conv_planes.conv(x, kernel, stride=stride, dilation=dilation)
    )
  if form == 'packed':
    return (
      conv_packed.conv_transpose(x, kernel)
      if doubles
      else conv_packed.conv(x, kernel, stride=stride, dilation=dilation)
    )
  if doubles:
    flipped, padding = kernel[::-1, ::-1, ::-1], ((1, 1), *((kernel.shape[1] - 2, 2),) * 2)
    return lax.conv_general_dilated(x, flipped, (1, 1, 1), padding, lhs_dilation=(1, 2, 2), dimension_numbers=_VOLUME)
  padding = [((k - 1) // 2 * d,) * 2 for k, d in zip(kernel.shape[:3], (1, dilation, dilation), strict=True)]
  return lax.conv_general_dilated(
    x, kernel, (1, stride, stride), padding, rhs_dilation=(1, dilation, dilation), dimension_numbers=_VOLUME
  )


def _compute_to_input(cotangent, kernel, *, size, **options):
  x = jax.ShapeDtypeStruct((*cotangent.shape[:2], *size, kernel.shape[3]), cotangent.dtype)
  return jax.linear_transpose(lambda x: _compute(x, kernel, **options), x)(cotangent)[0]


def _compute_to_kernel(x, cotangent, *, kernel_size, **options):
  kernel = jax.ShapeDtypeStruct((*kernel_size, x.shape[-1], cotangent.shape[-1]), x.dtype)
  return jax.linear_transpose(lambda kernel: _compute(x, kernel, **options), kernel)(cotangent)[0]


def _bind(primitive: Primitive, left: Array, right: Array, **options: Any) -> Array:
  """Binds a primitive with the current matmul precision, so that it also holds for gradients that are traced later."""
  return primitive.bind(left, right, precision=jax.config.jax_default_matmul_precision, **options)


def _primitive(name: str, function: Callable) -> Primitive:
  """A primitive that computes `function`, of two arrays to one, in the form of the target platform."""

  def on(platform):
    def compute(*arrays, form, precision, **options):
      with jax.default_matmul_precision(precision):
        return function(*arrays, form=form or FORM_ON.get(platform, 'native'), **options)

    return compute

  return primitive(name, on('other'), **{platform: on(platform) for platform in FORM_ON})


_conv_p = _primitive('conv', _compute)
_to_input_p = _primitive('conv_to_input', _compute_to_input)  # takes cotangent and kernel
_to_kernel_p = _primitive('conv_to_kernel', _compute_to_kernel)  # takes stack and cotangent


_FUNCTIONS = {_conv_p: _compute, _to_input_p: _compute_to_input, _to_kernel_p: _compute_to_kernel}


def _to_input(cotangent, x, kernel, **options):
  return _to_input_p.bind(cotangent, kernel, size=x.aval.shape[2:4], **options)


def _to_kernel(cotangent, x, kernel, **options):
  return _to_kernel_p.bind(x, cotangent, kernel_size=kernel.aval.shape[:3], **options)


# Each transpose is linear in the argument it was transposed with respect to.
ad.defbilinear(_conv_p, _to_input, _to_kernel)
ad.defbilinear(
  _to_input_p,
  lambda x, _, kernel, *, size, **options: _conv_p.bind(x, kernel, **options),
  lambda x, cotangent, kernel, *, size, **options: _to_kernel(cotangent, x, kernel, **options),
)
ad.defbilinear(
  _to_kernel_p,
  lambda kernel, x, cotangent, *, kernel_size, **options: _to_input(cotangent, x, kernel, **options),
  lambda kernel, x, _, *, kernel_size, **options: _conv_p.bind(x, kernel, **options),
)


def _batched(primitive: Primitive) -> Callable:
  """Batching rule for `vmap`: more stacks if all share the kernel, otherwise one after the other."""

  def rule(arrays, axes, **options):
    if axes[1] is None and primitive is not _to_kernel_p:
      stacks = jnp.moveaxis(arrays[0], axes[0], 0)
      y = primitive.bind(stacks.reshape(-1, *stacks.shape[2:]), arrays[1], **options)
      return y.reshape(*stacks.shape[:2], *y.shape[1:]), 0
    mapped = [jnp.moveaxis(array, axis, 0) for array, axis in zip(arrays, axes, strict=True) if axis is not None]

    def one(mapped):
      mapped = iter(mapped)
      return primitive.bind(
        *(array if axis is None else next(mapped) for array, axis in zip(arrays, axes, strict=True)), **options
      )

    return lax.map(one, mapped), 0

  return rule


for _one in _FUNCTIONS:
  batching.primitive_batchers[_one] = _batched(_one)
