"""AiFDepthNet: what follows from its structure; its numbers are compared in test_published.py."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host import on_host
from published_weights import arrays, state_dict

from focal_jax.models.aifdepthnet import AiFDepthNet, is_transposed
from focal_jax.models.end_to_end import init_variables, variable_shapes
from focal_jax.models.published import identify, variables_from
from focal_jax.models.registry import make_model

FOCUS = np.array([[2.0, 1.5, 0.7, 0.3, 0.1]], np.float32)


def images(frames=5, side=32):
  return np.random.default_rng(0).uniform(-1, 1, (1, frames, side, side, 3)).astype(np.float32)


@pytest.fixture(scope='module')
def variables():
  return {
    k: tree['depth']
    for k, tree in init_variables(
      make_model({'depth': {'name': 'aifdepthnet', 'channel_divisor': 8}, 'align': {'name': 'none'}}), 0
    ).items()
  }


@functools.cache
def compiled(**arguments):
  network = AiFDepthNet(channel_divisor=8, **arguments)
  return on_host(functools.partial(network.apply, train=False))


def apply(variables, *stack, **arguments):
  return compiled(**arguments)(variables, *stack)


@pytest.mark.slow
def test_softmax_equals_the_published_network(shared):
  path = shared / 'parity' / 'aifdepthnet.json'
  tensors, expected = state_dict(path), arrays(path.with_suffix('.npz'))
  model = make_model({'depth': {'name': 'aifdepthnet', 'normalisation': 'softmax'}, 'align': {'name': 'none'}})
  variables, unused = variables_from(path, tensors, identify(path, tensors), variable_shapes(model))
  assert unused == []
  inner = {kind: tree['depth'] for kind, tree in variables.items()}
  maps = jax.jit(lambda v, *s: model.depth.apply(v, *s, train=False))(
    inner, 2 * jnp.asarray(expected['stack']) - 1, jnp.asarray(expected['focus'])
  )
  np.testing.assert_allclose(maps.pyramid[0], expected['depth_softmax'], atol=1e-4)
  np.testing.assert_allclose(maps.weights, jax.nn.softmax(expected['scores'], axis=1), atol=1e-4)
  np.testing.assert_allclose(maps.all_in_focus, expected['aif'], atol=1e-4)


@pytest.mark.parametrize(
  ('arguments', 'count'),
  [({}, 16_533_873), ({'score_channels': 2}, 16_534_738), ({'frame_channel': True}, 16_555_825)],
)
def test_parameters(arguments, count):
  shapes = variable_shapes(make_model({'depth': {'name': 'aifdepthnet', **arguments}, 'align': {'name': 'none'}}))[
    'params'
  ]
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_depth_and_image_are_mixtures(variables):
  stack = images()
  maps = apply(variables, stack, FOCUS)
  pictures = stack / 2 + 0.5
  np.testing.assert_allclose(maps.pyramid[0], np.einsum('bnhw,bn->bhw', maps.weights, FOCUS), atol=1e-5)
  assert np.all(maps.all_in_focus >= pictures.min(1) - 1e-5)
  assert np.all(maps.all_in_focus <= pictures.max(1) + 1e-5)
  soft = apply(variables, stack, FOCUS, normalisation='softmax')
  np.testing.assert_allclose(soft.all_in_focus, np.einsum('bnhw,bnhwc->bhwc', soft.weights, pictures), atol=1e-5)
  np.testing.assert_allclose(soft.all_in_focus, maps.all_in_focus, atol=1e-6)
  assert np.abs(soft.weights - maps.weights).max() > 1e-3


def test_two_score_channels_are_normalised_alike():
  model = make_model(
    {'depth': {'name': 'aifdepthnet', 'channel_divisor': 8, 'score_channels': 2}, 'align': {'name': 'none'}}
  )
  variables = {kind: tree['depth'] for kind, tree in init_variables(model, 0).items()}
  kernel = variables['params']['score']['kernel']
  variables['params']['score']['kernel'] = jnp.repeat(kernel[..., :1], 2, axis=-1)  # both channels the same
  variables['params']['score']['bias'] = jnp.zeros(2)
  maps = apply(variables, images(3), FOCUS[:, 1:4], score_channels=2)
  pictures = images(3) / 2 + 0.5
  np.testing.assert_allclose(maps.all_in_focus, np.einsum('bnhw,bnhwc->bhwc', maps.weights, pictures), atol=1e-5)


def test_any_number_of_frames_and_focus(variables):
  depth = apply(variables, images(), FOCUS).pyramid[0]
  np.testing.assert_allclose(apply(variables, images(), 3 - 2 * FOCUS).pyramid[0], 3 - 2 * depth, atol=1e-5)


def test_the_frame_channel_tells_equal_frames_apart():
  model = make_model(
    {'depth': {'name': 'aifdepthnet', 'channel_divisor': 8, 'frame_channel': True}, 'align': {'name': 'none'}}
  )
  variables = {kind: tree['depth'] for kind, tree in init_variables(model, 0).items()}
  shape = variables['params']['stem1']['cell']['conv']['kernel'].shape
  assert shape == (7, 7, 7, 4, 8)
  maps = apply(variables, np.zeros_like(images(3)), FOCUS[:, :3], frame_channel=True)
  assert np.ptp(maps.weights, axis=1).max() > 1e-5


def test_initial_values_are_those_of_pytorch():
  drawn = flax.traverse_util.flatten_dict(
    init_variables(make_model({'depth': {'name': 'aifdepthnet'}, 'align': {'name': 'none'}}), 0)['params']
  )
  transposed = 0
  for path, value in drawn.items():
    if path[-1] != 'kernel':
      continue
    ours = '.'.join(path[1:-1])
    transposed += is_transposed(ours)
    fan_in = np.prod(value.shape[:3]) * value.shape[-1 if is_transposed(ours) else -2]
    for one in (value, drawn[(*path[:-1], 'bias')]):
      assert np.abs(one).max() <= fan_in**-0.5
    np.testing.assert_allclose(np.abs(value).max(), fan_in**-0.5, rtol=0.1)
  assert transposed == 5


@pytest.mark.slow
@pytest.mark.parametrize('bias', [0.0, -15.0, -25.0, -200.0])
def test_low_scores_have_weights(variables, bias):
  """softplus(s) / sum softplus(s) is 0 / 0 in float32 where all scores are low, and softmax(s) in exact arithmetic."""
  changed = jax.tree.map(lambda x: x, variables)
  changed['params']['score']['bias'] = jnp.full(1, bias)
  soft = apply(changed, images(), FOCUS, normalisation='softmax')
  maps = apply(changed, images(), FOCUS)
  assert np.isfinite(maps.pyramid[0]).all()
  np.testing.assert_allclose(maps.weights.sum(1), 1, rtol=1e-5)
  if bias < -20:
    np.testing.assert_allclose(maps.weights, soft.weights, atol=1e-5)

  def depth(bias):
    tree = jax.tree.map(lambda x: x, changed)
    tree['params']['score']['bias'] = bias
    return (
      AiFDepthNet(channel_divisor=8).apply(tree, *map(jnp.asarray, (images(), FOCUS)), train=False).pyramid[0].sum()
    )

  if bias == -200:
    assert np.isfinite(jax.jit(jax.grad(depth))(jnp.full(1, bias))).all()
