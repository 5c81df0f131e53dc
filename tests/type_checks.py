"""Runtime type checks of focal_jax under pytest (`--jaxtyping-packages` in pyproject.toml): beartype, with one
exception.
"""

import functools
from collections.abc import Callable

import jax
from beartype import beartype


def check(function: Callable) -> Callable:
  """`beartype(function)`; a dataclass, however, may be made of placeholders.

  JAX makes trees of bare objects where it looks at their structure alone (older versions in every `vmap` and `pmap`).
  """
  checked = beartype(function)
  if function.__name__ != '__init__':
    return checked

  @functools.wraps(checked)
  def check_fields(self, *args, **kwargs):
    if not any(type(leaf) is object for leaf in jax.tree.leaves((args, kwargs))):
      return checked(self, *args, **kwargs)
    return None

  return check_fields
