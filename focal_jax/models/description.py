"""The description of a model in a weights file (`registry.ModelSettings`), and the format of older files.

New: {'model': {'channels': .., 'depth': {'name': .., ..}, 'align': {'name': .., ..}}, 'steps': .., 'data': ..}
Old: {'model': 'end_to_end', 'arguments': {'depth': 'refined', 'alignment': 'fitted', 'motion_side_px': 256, ..}, ..}
     {'model': 'dfv', 'arguments': {'differential': True, 'alignment': 'none', ..}, ..}
"""

from collections.abc import Mapping
from typing import Any

from focal_jax.errors import InputError
from focal_jax.models.registry import SECTIONS, ModelSettings

_OLD_PLACES = {
  'depth': 'depth.name',
  'alignment': 'align.name',
  'motion_side_px': 'align.side_px',
  'motion_passes': 'align.passes',
}
_OLD_MODELS = ('end_to_end', 'defocusnet', 'aifdepthnet', 'dfv')
_OLD_NAMES = {'published': 'won_jeon'}
# Fields that `end_to_end` files have for every depth network; only Won and Jeon's uses them.
_WON_JEON_FIELDS = ('detection', 'downsampling', 'stem_dilation', 'focus_measures')
_MOTION_FIELDS = ('side_px', 'passes')


def model_from_description(description: Mapping[str, Any]) -> dict[str, Any]:
  """The model in a weights file's description, in the old or new format, as `registry.make_model` takes it.

  Raises:
    InputError: the description has no model, or an unknown one.
  """
  model = description.get('model')
  if isinstance(model, Mapping):
    return dict(model)
  if model not in _OLD_MODELS:
    raise InputError(f"weights of a model '{model}', expected sections of fields, or one of {', '.join(_OLD_MODELS)}")
  alone = {'depth': {'name': model}, 'align': {'name': 'none'}}
  found = replace_fields({} if model == 'end_to_end' else alone, description.get('arguments', {}))
  depth, align = (found.get(section, {}) for section in SECTIONS)
  if model == 'end_to_end' and depth.get('name', SECTIONS['depth']) != 'won_jeon':
    depth = {field: value for field, value in depth.items() if field not in _WON_JEON_FIELDS}
  if align.get('name') in ('metadata', 'none'):
    align = {field: value for field, value in align.items() if field not in _MOTION_FIELDS}
  return found | {'depth': depth, 'align': align}


def replace_fields(model: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
  """A model description with some of its fields changed.

  Args:
    model: the description.
    arguments: new values by field: 'padding', 'depth.differential' or 'align.name'. 'depth.' may be omitted, and the
      names in old files are accepted too ('alignment', 'motion_side_px', 'motion_passes', 'depth').
  """
  changed = dict(model) | {section: dict(model[section]) for section in SECTIONS if section in model}
  common = {name for name in ModelSettings.__dataclass_fields__ if name not in SECTIONS}
  for name, value in arguments.items():
    if isinstance(value, Mapping) and name in SECTIONS:
      changed[name] = changed.get(name, {}) | dict(value)
      continue
    place = _OLD_PLACES.get(name, name)
    section, dot, field = place.partition('.')
    if not dot and place not in common:
      section, field = 'depth', place
    if field == '':
      changed[place] = value
    else:
      value = _OLD_NAMES.get(value, value) if field == 'name' and isinstance(value, str) else value
      changed[section] = changed.get(section, {}) | {field: value}
  return changed
