"""The depth and alignment networks by name, and the model for a config or a weights file.

A model is described by a mapping with the fields of `ModelSettings`; missing fields have their default:

  {'channels': 'RGB', 'padding': 'edge', 'resampling': 'linear',
   'depth': {'name': 'dfv', 'level': 4}, 'align': {'name': 'fitted', 'side_px': 256}}

A network's own fields are those of its class except `axis_name` and `remat`, which do not change the weights. Their
annotations give the allowed values: a Literal, bool, or int or float for numbers from 0. Each field has a default, so
that older weights files without it still load.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import flax.linen as nn
import jax.numpy as jnp

from focal_jax.errors import InputError
from focal_jax.models.aifdepthnet import AiFDepthNet
from focal_jax.models.alignment import AlignmentNetwork, FittedAlignment, MetadataAlignment, NoAlignment
from focal_jax.models.curves import CurveNetwork
from focal_jax.models.defocusnet import DefocusNet
from focal_jax.models.depth import DepthNetwork
from focal_jax.models.dfv import DFV
from focal_jax.models.end_to_end import EndToEnd
from focal_jax.models.refinement import RefinementNetwork


@dataclasses.dataclass(frozen=True)
class EstimatedMotion:
  """Fields of an alignment network that estimates motion from the frames."""

  side_px: int = 0  # longer side that frames are reduced to for motion estimation; 0: full size
  passes: Literal[1, 2, 3, 4] = 1  # number of motion estimates, each from frames warped by the previous one


@dataclasses.dataclass(frozen=True)
class NoFields:
  """Fields of an alignment without any."""


@dataclasses.dataclass(frozen=True)
class Alignment:
  """An alignment network: its class, and its own fields."""

  module: type[nn.Module]
  settings: type = NoFields


DEPTH: dict[str, type[nn.Module]] = {
  'won_jeon': DepthNetwork,
  'curves': CurveNetwork,
  'refined': RefinementNetwork,
  'defocusnet': DefocusNet,
  'aifdepthnet': AiFDepthNet,
  'dfv': DFV,
}
ALIGN: dict[str, Alignment] = {
  'learned': Alignment(AlignmentNetwork, EstimatedMotion),
  'fitted': Alignment(FittedAlignment, EstimatedMotion),
  'metadata': Alignment(MetadataAlignment),
  'none': Alignment(NoAlignment),
}
SECTIONS = {'depth': 'won_jeon', 'align': 'learned'}  # sections of a model and their default networks

_NOT_OWN = ('axis_name', 'remat', 'parent', 'name')


def networks(section: str) -> tuple[str, ...]:
  """Names of the networks available for a section, 'depth' or 'align'."""
  return tuple(DEPTH if section == 'depth' else ALIGN)


def settings_class(section: str, name: str) -> type:
  """The dataclass that declares a network's own fields (and those in `_NOT_OWN`)."""
  return DEPTH[name] if section == 'depth' else ALIGN[name].settings


def own_fields(section: str, name: str) -> dict[str, dataclasses.Field]:
  """A network's own fields by name."""
  fields = dataclasses.fields(settings_class(section, name))
  return {field.name: field for field in fields if field.name not in _NOT_OWN}


def complete_network(section: str, given: Any) -> dict[str, Any]:
  """The name of a network and all its own fields; omitted ones have their default.

  Args:
    section: 'depth' or 'align'.
    given: a mapping with 'name' and any of the network's fields.

  Raises:
    InputError: an unknown network, a field that the network lacks, or an invalid value.
  """
  if not isinstance(given, Mapping):
    raise InputError(f"model.{section} is {given!r}, expected a section with a name, as {{'name': {given!r}}}")
  given = {'name': SECTIONS[section]} | dict(given)
  name = given.pop('name')
  if name not in networks(section):
    raise InputError(f'model.{section}.name is {name!r}, expected one of {", ".join(networks(section))}')
  own = own_fields(section, name)
  for field, value in given.items():
    if field not in own:
      has = ', '.join(own) or 'none'
      raise InputError(f'model.{section}.{field} is {value!r}, expected no such field; {name} has {has}')
    _check(f'model.{section}.{field}', value, own[field].type)
  return {'name': name} | {field: given.get(field, own[field].default) for field in own}


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """The networks and their input."""

  channels: Literal['RGB', 'BGR'] = 'RGB'  # channel order of the networks' input
  padding: Literal['edge', 'black', 'reflect'] = 'edge'  # padding of frames to multiples of 32 px
  # Resampling of the aligned frames for the depth network: linear as published; lanczos keeps them sharp.
  resampling: Literal['linear', 'lanczos'] = 'linear'
  # The depth network: its name and its own fields.
  depth: Mapping[str, Any] = dataclasses.field(default_factory=lambda: complete_network('depth', {}))
  # The alignment before it: its name and its own fields. learned: the published network; fitted: a network that also
  # finds zooms missing from the metadata; metadata: only the crop to the common field of view; none: no alignment.
  align: Mapping[str, Any] = dataclasses.field(default_factory=lambda: complete_network('align', {}))


def complete(model: Mapping[str, Any]) -> dict[str, Any]:
  """The description of a model with all fields; omitted ones have their default.

  Raises:
    InputError: an unknown network or field, or a value that is not allowed.
  """
  fields = {field.name: field for field in dataclasses.fields(ModelSettings)}
  whole = {name: None if name in SECTIONS else field.default for name, field in fields.items()}
  for name, value in model.items():
    if name not in fields:
      raise InputError(f'model.{name} is {value!r}, expected no such field; a model has {", ".join(fields)}')
    if name not in SECTIONS:
      _check(f'model.{name}', value, fields[name].type)
      whole[name] = value
  return whole | {section: complete_network(section, model.get(section, {})) for section in SECTIONS}


def make_model(
  model: Mapping[str, Any],
  *,
  axis_name: str | None = None,
  dtype: Any = jnp.float32,
  precision: str = 'default',
  remat: bool = False,
) -> EndToEnd:
  """The model for a description.

  Args:
    model: see `ModelSettings`.
    axis_name: devices over which batch normalisation averages in training.
    dtype, precision: see `EndToEnd`.
    remat: recompute the activations of each block in the backward pass, to save memory.

  Raises:
    InputError: see `complete`.
  """
  whole = complete(model)
  depth, align = whole.pop('depth'), whole.pop('align')
  network, alignment = DEPTH[depth.pop('name')], ALIGN[align.pop('name')]
  # An alignment network with its own passes repeats them on features instead of frames.
  repeats_itself = 'passes' in (field.name for field in dataclasses.fields(alignment.module))
  passes = {'passes': align.get('passes', 1)}
  return EndToEnd(
    depth=_made(network, depth, axis_name, remat),
    alignment=_made(alignment.module, passes if repeats_itself else {}, axis_name, remat),
    motion_side_px=align.get('side_px', 0),
    motion_passes=1 if repeats_itself else passes['passes'],
    dtype=dtype,
    precision=precision,
    **whole,
  )


def _made(kind: type[nn.Module], own: Mapping[str, Any], axis_name: str | None, remat: bool) -> nn.Module:
  fields = {field.name for field in dataclasses.fields(kind)}
  runtime = {'axis_name': axis_name, 'remat': remat}
  return kind(**own, **{name: value for name, value in runtime.items() if name in fields})


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
  elif annotation is float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
      raise InputError(f'{field} is {value!r}, expected a number, 0 or more')
  else:
    raise TypeError(f'{field}: no check of {annotation}')
