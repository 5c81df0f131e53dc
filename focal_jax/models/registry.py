"""The models by name, made from what a config or a weights file says of them.

A factory's parameters are the arguments that make one set of weights another's, JSON-able and each with a default, so
that weights files written before there was an argument still load; their annotations say what is allowed: a Literal, or
int for numbers from 0. What it takes beyond that (`**runtime`) is no property of the weights: axis_name, dtype, remat.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

import flax.linen as nn

from focal_jax.errors import InputError
from focal_jax.models.aifdepthnet import AiFDepthNet
from focal_jax.models.defocusnet import DefocusNet
from focal_jax.models.dfv import DFV
from focal_jax.models.end_to_end import assemble, make_end_to_end

_RUNTIME = ('axis_name', 'dtype', 'remat')


def alone_or_aligned(network: type[nn.Module]) -> Callable[..., nn.Module]:
  """A factory of an end-to-end network with this depth network, see `EndToEnd`, and any alignment.

  Its arguments are the depth network's own, that is its fields, which have annotations as above, and those of
  `end_to_end.assemble`. Of what is no property of the weights a depth network has the fields axis_name and remat.
  """
  fields = inspect.signature(network).parameters.values()
  own = [field for field in fields if field.name not in (*_RUNTIME, 'parent', 'name')]
  around = [one for one in list(inspect.signature(assemble).parameters.values())[1:] if one.name not in _RUNTIME]

  def make(**arguments: Any) -> nn.Module:
    taken = {field.name: arguments.pop(field.name) for field in own if field.name in arguments}
    runtime = {name: arguments[name] for name in ('axis_name', 'remat') if name in arguments}
    return assemble(network(**taken, **runtime), **arguments)

  runtime = inspect.Parameter('runtime', inspect.Parameter.VAR_KEYWORD)
  make.__signature__ = inspect.Signature([*(one.replace(kind=one.KEYWORD_ONLY) for one in (*own, *around)), runtime])
  return make


MODELS: dict[str, Callable[..., nn.Module]] = {
  'end_to_end': make_end_to_end,
  'defocusnet': alone_or_aligned(DefocusNet),
  'aifdepthnet': alone_or_aligned(AiFDepthNet),
  'dfv': alone_or_aligned(DFV),
}


def make_model(name: str, arguments: Mapping[str, Any], **runtime: Any) -> nn.Module:
  """The model of this name.

  Args:
    name: one of `MODELS`.
    arguments: of its factory; those missing take the default.
    runtime: axis_name, dtype and remat of the module.

  Raises:
    InputError: an unknown model or argument, or a value that is not allowed.
  """
  if name not in MODELS:
    raise InputError(f'model.name is {name!r}, expected one of {", ".join(MODELS)}')
  parameters = inspect.signature(MODELS[name]).parameters
  allowed = {key: p.annotation for key, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
  for key, value in arguments.items():
    if key not in allowed:
      raise InputError(f'model.{key} is {value!r}, expected no such field; {name} has {", ".join(allowed)}')
    _check(f'model.{key}', value, allowed[key])
  return MODELS[name](**arguments, **runtime)


def _check(field: str, value: Any, annotation: Any) -> None:
  if get_origin(annotation) is Literal:
    if value not in get_args(annotation):
      raise InputError(f'{field} is {value!r}, expected one of {", ".join(map(str, get_args(annotation)))}')
  elif annotation is bool:
    if type(value) is not bool:
      raise InputError(f'{field} is {value!r}, expected True or False')
  elif annotation is int:
    if type(value) is not int or value < 0:  # True is an int to isinstance
      raise InputError(f'{field} is {value!r}, expected a whole number, 0 or more')
  else:
    raise TypeError(f'{field}: no check of {annotation}')
