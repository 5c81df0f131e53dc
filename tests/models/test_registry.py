"""Networks by name, and the descriptions of models in configs and weights files, new and old."""

import jax.numpy as jnp
import pytest

from focal_jax import api
from focal_jax.errors import InputError
from focal_jax.models.alignment import AlignmentNetwork, FittedAlignment, MetadataAlignment, NoAlignment
from focal_jax.models.curves import CurveNetwork
from focal_jax.models.depth import DepthNetwork
from focal_jax.models.description import model_from_description, replace_fields
from focal_jax.models.dfv import DFV
from focal_jax.models.end_to_end import EndToEnd, init_variables
from focal_jax.models.npz_file import save_weights
from focal_jax.models.refinement import RefinementNetwork
from focal_jax.models.registry import complete, make_model


def test_missing_fields_have_their_defaults():
  assert make_model({}) == EndToEnd()
  assert complete({}) == {
    'channels': 'RGB',
    'padding': 'edge',
    'resampling': 'linear',
    'depth': {
      'name': 'won_jeon',
      'detection': 'both',
      'downsampling': 'both',
      'stem_dilation': 2,
      'focus_measures': False,
    },
    'align': {'name': 'learned', 'side_px': 0, 'passes': 1},
  }
  assert make_model(complete({})) == EndToEnd()


def test_given_fields_reach_the_network():
  model = {
    'channels': 'BGR',
    'padding': 'black',
    'depth': {'detection': 'plane'},
    'align': {'side_px': 64, 'passes': 2},
  }
  runtime = {'axis_name': 'batch', 'remat': True}
  expected = EndToEnd(
    DepthNetwork(detection='plane', **runtime), AlignmentNetwork(**runtime), 'BGR', 'black', 64, 2, dtype=jnp.bfloat16
  )
  assert make_model(model, dtype=jnp.bfloat16, **runtime) == expected
  # Networks without batch normalisation do not use the axis.
  made = make_model({'depth': {'name': 'curves'}, 'align': {'name': 'fitted', 'passes': 3}}, **runtime)
  assert made == EndToEnd(CurveNetwork(remat=True), FittedAlignment(passes=3, **runtime))


@pytest.mark.parametrize(
  ('model', 'message'),
  [
    ({'channels': 'GBR'}, r"model\.channels is 'GBR', expected one of RGB, BGR$"),
    ({'padding': None}, r'model\.padding is None, expected one of edge, black, reflect$'),
    ({'dtype': 'bfloat16'}, r"model\.dtype is 'bfloat16', expected no such field; a model has channels, padding"),
    ({'depth': 'curves'}, r"model\.depth is 'curves', expected a section with a name, as \{'name': 'curves'\}"),
    ({'depth': {'name': 'resnet'}}, r"model\.depth\.name is 'resnet', expected one of won_jeon, curves"),
    ({'align': {'name': 'both'}}, r"model\.align\.name is 'both', expected one of learned, fitted, metadata, none"),
    ({'depth': {'detection': 1}}, r'model\.depth\.detection is 1, expected one of both, plane, attention, none$'),
    ({'depth': {'focus_measures': 1}}, r'model\.depth\.focus_measures is 1, expected True or False$'),
    ({'depth': {'name': 'curves', 'detection': 'both'}}, r"depth\.detection is 'both', expected no such field; curves"),
    ({'depth': {'level': 4}}, r'model\.depth\.level is 4, expected no such field; won_jeon has detection, downsampl'),
    ({'align': {'name': 'metadata', 'passes': 1}}, r'model\.align\.passes is 1, expected no such field; metadata has'),
    (
      {'depth': {'name': 'refined', 'trusted_confidence': -0.1}},
      r'model\.depth\.trusted_confidence is -0.1, expected a number, 0 or more',
    ),
    ({'align': {'side_px': -1}}, r'model\.align\.side_px is -1, expected a whole number, 0 or more'),
    ({'align': {'side_px': 1.5}}, r'model\.align\.side_px is 1\.5, expected a whole number'),
    ({'align': {'side_px': True}}, r'model\.align\.side_px is True, expected a whole number'),
  ],
)
def test_bad_fields(model, message):
  with pytest.raises(InputError, match=message):
    make_model(model)


# As in `weights/simulated.npz`.
OF_THE_SHIPPED = {
  'alignment': 'fitted',
  'channels': 'RGB',
  'depth': 'refined',
  'detection': 'both',
  'downsampling': 'both',
  'focus_measures': False,
  'motion_passes': 2,
  'motion_side_px': 256,
  'padding': 'edge',
  'resampling': 'lanczos',
  'stem_dilation': 2,
}


@pytest.mark.parametrize(
  ('name', 'arguments', 'expected'),
  [
    ('end_to_end', {}, EndToEnd()),
    ('end_to_end', {'depth': 'published', 'stem_dilation': 1}, EndToEnd(DepthNetwork(stem_dilation=1))),
    (
      'end_to_end',
      OF_THE_SHIPPED,
      EndToEnd(RefinementNetwork(), FittedAlignment(passes=2), motion_side_px=256, resampling='lanczos'),
    ),
    (
      'end_to_end',
      {'depth': 'curves', 'alignment': 'learned', 'motion_side_px': 64, 'motion_passes': 3},
      EndToEnd(CurveNetwork(), motion_side_px=64, motion_passes=3),
    ),
    # Old files have the motion fields whether or not the alignment uses the frames.
    (
      'end_to_end',
      {'alignment': 'metadata', 'detection': 'none', 'motion_side_px': 64, 'motion_passes': 1},
      EndToEnd(DepthNetwork(detection='none'), MetadataAlignment()),
    ),
    ('dfv', {}, EndToEnd(DFV(), NoAlignment())),
    (
      'dfv',
      {'differential': False, 'level': 2, 'padding': 'reflect', 'alignment': 'fitted', 'motion_side_px': 256},
      EndToEnd(DFV(False, 2), FittedAlignment(), padding='reflect', motion_side_px=256),
    ),
  ],
)
def test_descriptions_of_older_files(name, arguments, expected):
  assert make_model(model_from_description({'model': name, 'arguments': arguments, 'data': []})) == expected


def test_current_descriptions_are_kept():
  model = complete({'depth': {'name': 'dfv', 'level': 2}, 'align': {'name': 'none'}})
  assert model_from_description({'model': model, 'steps': 3}) == model


@pytest.mark.parametrize(
  ('description', 'message'),
  [
    ({}, "weights of a model 'None', expected sections"),
    (
      {'model': 'resnet', 'arguments': {}},
      "weights of a model 'resnet', expected sections of fields, or one of end_to_",
    ),
  ],
)
def test_unknown_models_are_refused(description, message):
  with pytest.raises(InputError, match=message):
    model_from_description(description)


@pytest.mark.parametrize(
  'arguments',
  [
    {'depth.differential': False, 'align.name': 'fitted', 'align.side_px': 64, 'channels': 'BGR'},
    {'differential': False, 'alignment': 'fitted', 'motion_side_px': 64, 'channels': 'BGR'},
    {'depth': {'differential': False}, 'align': {'name': 'fitted', 'side_px': 64}, 'channels': 'BGR'},
  ],
)
def test_arguments_by_path_and_by_old_name(arguments):
  before = {'padding': 'reflect', 'depth': {'name': 'dfv'}, 'align': {'name': 'none'}}
  assert replace_fields(before, arguments) == {
    'channels': 'BGR',
    'padding': 'reflect',
    'depth': {'name': 'dfv', 'differential': False},
    'align': {'name': 'fitted', 'side_px': 64},
  }
  assert before['depth'] == {'name': 'dfv'}
  with pytest.raises(InputError, match=r'model\.depth\.diferential is False, expected no such field; dfv has diff'):
    make_model(replace_fields(before, {'diferential': False}))


def test_weights_files_of_ablations_load(tmp_path):
  path, model = tmp_path / 'ablation.npz', {'align': {'name': 'none'}, 'depth': {'detection': 'none'}}
  variables = init_variables(make_model(model), 0)
  assert set(variables['params']) == {'depth'}
  for description in (
    {'model': model},
    {'model': 'end_to_end', 'arguments': {'alignment': 'none', 'detection': 'none'}},
  ):
    save_weights(path, variables, description)
    assert api.load(path).network == make_model(model)
  save_weights(path, {}, {'model': {'padding': 'white'}})
  with pytest.raises(InputError, match=r"ablation\.npz: model\.padding is 'white', expected"):
    api.load(path)
