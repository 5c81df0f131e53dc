"""Compiled functions whose results tests go on with in NumPy: JAX compiles each operation on its own arrays, too."""

import dataclasses
from types import SimpleNamespace

import jax


def on_host(function, **options):
  """`jax.jit(function, **options)`, its results in NumPy; instead of a dataclass, a namespace of its fields."""
  compiled = jax.jit(function, **options)
  return lambda *arguments, **named: to_numpy(compiled(*arguments, **named))


def to_numpy(value):
  if dataclasses.is_dataclass(value):  # which may want arrays of JAX
    return SimpleNamespace(**{name: to_numpy(field) for name, field in vars(value).items()})
  return jax.device_get(value)
