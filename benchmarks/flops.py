"""Counts the floating-point operations of a function from its jaxpr.

Counts multiplications and additions of convolutions and matrix products. For a convolution all taps at every output
position count, including those over the padding, as is usual (without them the depth network has 43 GFLOP for ten
frames of 224 px instead of 47), but not the zeros that a transposed convolution, or the gradient of a strided one,
inserts between pixels. So a convolution, its input gradient and its weight gradient cost the same. Normalisation,
activations and pooling are not counted.

Work that the networks can share is counted once: the first convolution of the alignment heads takes the reference
together with every frame; as published, computed for each frame, two networks and ten frames have 75 GFLOP instead of
71.

The networks are counted in their native form (`models.conv`), whatever form is run: the other forms compute more, which
should appear as a lower utilisation, not as more work.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from focal_jax.models import conv


@dataclasses.dataclass
class Flops:
  convolutions: float = 0.0
  products: float = 0.0


def count(function: Callable, *arguments: Any) -> Flops:
  """Operations of function(*arguments), for arrays or their shapes, on one device."""
  jaxpr = jax.make_jaxpr(lambda *arguments: function(*arguments))(*arguments)
  total = Flops()
  _add(jaxpr.jaxpr, 1, total)
  return total


def inner_jaxprs(equation: Any) -> Iterator[Any]:
  """The jaxprs that an equation calls, except branches that it chooses between."""
  for value in equation.params.values():
    inner = getattr(value, 'jaxpr', value)  # a ClosedJaxpr or a Jaxpr
    if hasattr(inner, 'eqns'):
      yield inner


def _add(jaxpr: Any, times: int, total: Flops) -> None:
  for equation in jaxpr.eqns:
    name, parameters = equation.primitive.name, equation.params
    if (native := conv.native_jaxpr(equation)) is not None:
      _add(native, times, total)
    elif name == 'conv_general_dilated':
      total.convolutions += times * _convolution(equation)
    elif name == 'dot_general':
      (contracted, _), _ = parameters['dimension_numbers']
      inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
      total.products += times * 2.0 * inner * math.prod(equation.outvars[0].aval.shape)
    elif name == 'while':
      raise NotImplementedError('a loop of unknown length')
    elif name == 'cond':
      branches = []
      for branch in parameters['branches']:
        branches.append(Flops())
        _add(branch.jaxpr, times, branches[-1])
      total.convolutions += max(branch.convolutions for branch in branches)
      total.products += max(branch.products for branch in branches)
    else:
      inner_times = times * parameters['length'] if name == 'scan' else times
      for inner in inner_jaxprs(equation):
        _add(inner, inner_times, total)


def _convolution(equation: Any) -> float:
  right, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
  p = equation.params
  numbers = p['dimension_numbers']
  met = 1.0  # pairs of an output position and a tap
  for axis, (right_axis, out_axis) in enumerate(zip(numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)):
    places = np.arange(out[out_axis]) * p['window_strides'][axis] - p['padding'][axis][0]
    pixels = places[:, None] + np.arange(right[right_axis]) * p['rhs_dilation'][axis]
    met *= float(np.count_nonzero(pixels % p['lhs_dilation'][axis] == 0))
  return 2.0 * met * out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
