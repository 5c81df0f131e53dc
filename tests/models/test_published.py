"""Published `.pth` files through the public interface, against outputs of the published code."""

import numpy as np
import pytest
from published_weights import arrays, state_dict, write_pth

from focal_jax import api
from focal_jax.errors import InputError
from focal_jax.models.published import published_networks
from focal_jax.prediction.convert import convert, parse_arguments

# Fixture: arguments that its file does not contain, expected arrays by field of a prediction, unit of depth.
FIXTURES = {
  'defocusnet': ({}, {'depth': 'depth', 'defocus': 'defocus'}, 3.0),
  'aifdepthnet': ({}, {'depth': 'depth_softplus', 'all_in_focus': 'aif'}, 1.0),
  'dfv_fv': ({'differential': False}, {'depth': 'depth', 'uncertainty': 'std', 'weights': 'prob'}, 1.0),
  'dfv_diff': ({}, {'depth': 'depth', 'uncertainty': 'std', 'weights': 'prob'}, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', FIXTURES)
def test_a_file_predicts_as_published(name, shared, tmp_path):
  arguments, fields, unit = FIXTURES[name]
  path = shared / 'parity' / f'{name}.json'
  model = api.load(write_pth(tmp_path / f'{name}.pth', state_dict(path)), arguments)
  expected = arrays(path.with_suffix('.npz'))
  out = model.predict(expected['stack'][0], expected['focus'][0], align='off')
  for field, array in fields.items():
    found = getattr(out, field) / (unit if field == 'depth' else 1.0)
    np.testing.assert_allclose(found, expected[array][0], atol=1e-4, err_msg=field)
  description = model.description['model']
  assert (description['depth']['name'], description['align']) == (name.partition('_')[0], {'name': 'none'})


def test_a_converted_file_is_the_same_network(shared, tmp_path):
  path = shared / 'parity' / 'defocusnet.json'
  file = write_pth(tmp_path / 'w.pth', state_dict(path))
  about = convert(str(file), ['channels=BGR'], tmp_path / 'out')
  assert about == {
    'model': {
      'channels': 'BGR',
      'padding': 'edge',
      'resampling': 'linear',
      'depth': {'name': 'defocusnet', 'unit': 'metres', 'channel_divisor': 1},
      'align': {'name': 'none'},
    },
    'data': ['published'],
  }
  assert api.load(tmp_path / 'out' / 'weights.npz').description == about
  expected = arrays(path.with_suffix('.npz'))
  out = api.load(tmp_path / 'out' / 'weights.npz').predict(
    expected['stack'][0, ..., ::-1], expected['focus'][0], align='off'
  )
  np.testing.assert_allclose(out.depth / 3, expected['depth'][0], atol=1e-4)


def test_files_that_cannot_be_converted(tmp_path):
  with pytest.raises(InputError, match=r"--arguments has 'BGR', expected NAME=VALUE"):
    parse_arguments(['differential=False', 'BGR'])
  assert parse_arguments(['differential=False', 'channels=BGR', 'level=3']) == {
    'differential': False,
    'channels': 'BGR',
    'level': 3,
  }
  for weights in ('w.npz', 'classical'):
    with pytest.raises(InputError, match=r'expected a published \.pth'):
      convert(weights, [], tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_arguments_are_of_files_that_do_not_tell_them(tmp_path):
  with pytest.raises(InputError, match=r"w\.npz: arguments \{'padding': 'edge'\}, expected none"):
    api.load(tmp_path / 'w.npz', {'padding': 'edge'})


def test_no_network_is_taken_for_another():
  networks = published_networks()
  tensors = [{f'{module}.weight' for module in network.modules.values()} for network in networks]
  for network, own in zip(networks, tensors, strict=True):
    assert [network.probe in other for other in tensors].count(True) == 1
    assert network.probe in own
