"""Change of depth when convolutions use less precise inputs, as on TPUs and GPUs by default.

python -m benchmarks.precision

The inputs of each convolution of the shipped network are rounded to the type that the chip multiplies; sums are
float32, as on the chip. Uses the five real crops of `examples/`, unaligned and with the network's alignment. The change
of depth is in percent of the stack's focus range. `config.precision` and `jax.default_matmul_precision` select the
type.
"""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

import focal_jax
from focal_jax.backend import compiler_options, use_compilation_cache
from focal_jax.data.sources import ddff_examples
from focal_jax.models import conv
from focal_jax.stack import FocalStack

MANTISSA_BITS = {'bfloat16 (TPUs)': 7, 'TF32 (GPUs)': 10}


def rounded(x: jax.Array, bits: int) -> jax.Array:
  """Rounds float32 to a mantissa of this many bits after the leading one."""
  return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)


def predictor(network, bits: int | None, align: bool):
  """`network.apply` to depth with convolution inputs rounded to this many bits; None: not rounded."""

  def with_rounding(function):
    if bits is None:
      return function
    return lambda x, kernel, **options: function(rounded(x, bits), rounded(kernel, bits), **options)

  def predict(variables, stack):
    names = ('conv', 'conv_transpose')
    with mock.patch.multiple(conv, **{name: with_rounding(getattr(conv, name)) for name in names}):
      return network.apply(variables, stack, align=align).depth

  return jax.jit(predict, compiler_options=compiler_options())


def main(argv: list[str]) -> None:
  del argv
  use_compilation_cache()
  model = focal_jax.load()
  print('| | mean shift, % of the focus range | 99th percentile | largest |\n| --- | ---: | ---: | ---: |')
  for align in (False, True):
    exact = predictor(model.network, None, align)
    for name, bits in MANTISSA_BITS.items():
      coarse, shifts = predictor(model.network, bits, align), []
      for example in ddff_examples():
        images = jnp.asarray(example['images'], jnp.float32)[None] / 255
        focus = jnp.asarray(example['focus'], jnp.float32)[None]
        stack = FocalStack(images=images, focus=focus, fov=jnp.ones_like(focus))
        shift = coarse(model.variables, stack) - exact(model.variables, stack)
        shifts.append(100 * np.abs(np.asarray(shift)) / float(jnp.ptp(focus)))
      mean, high, most = np.mean(shifts), np.percentile(shifts, 99), np.max(shifts)
      label = f'{name}, {"aligned by the network" if align else "frames as they are"}'
      print(f'| {label} | {mean:.3f} | {high:.3f} | {most:.3f} |', flush=True)


if __name__ == '__main__':
  app.run(main)
