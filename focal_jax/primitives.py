"""JAX primitives whose implementation depends on the target platform."""

import functools
from collections.abc import Callable

import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir


def primitive(name: str, function: Callable, **on_platform: Callable) -> Primitive:
  """A JAX primitive whose lowering depends on the platform.

  Args:
    name: name of the primitive.
    function: default implementation, arrays to one array. Keyword arguments become parameters of the primitive.
    on_platform: implementations for single platforms, such as `cpu=...`.

  Returns:
    The primitive, without differentiation and batching rules; the caller registers those.
  """
  new = Primitive(name)

  @functools.cache
  def compiled(**options):
    return jax.jit(functools.partial(new.bind, **options))

  def abstract(*avals, **options):
    shapes = (jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals)
    out = jax.eval_shape(functools.partial(function, **options), *shapes)
    return jax.core.ShapedArray(out.shape, out.dtype)

  new.def_impl(lambda *arrays, **options: compiled(**options)(*arrays))
  new.def_abstract_eval(abstract)
  mlir.register_lowering(new, mlir.lower_fun(function, multiple_results=False))
  for platform, there in on_platform.items():
    mlir.register_lowering(new, mlir.lower_fun(there, multiple_results=False), platform=platform)
  return new
