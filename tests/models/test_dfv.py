"""DFV: what follows from its structure; its numbers are compared in test_published.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_weights import arrays, state_dict

from focal_jax.models.dfv import average_cells, pool_counts
from focal_jax.models.end_to_end import init_variables, variable_shapes
from focal_jax.models.published import identify, variables_from
from focal_jax.models.registry import make_model
from focal_jax.stack import spread

FOCUS = jnp.array([[2.0, 0.7, 0.1]])


def images(frames=3, side=32):
  return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, frames, side, side, 3)), jnp.float32)


def drawn(**arguments):
  model = make_model({'depth': {'name': 'dfv', 'channel_divisor': 8, **arguments}, 'align': {'name': 'none'}})
  return model.depth, {kind: tree['depth'] for kind, tree in init_variables(model, 0).items()}


@functools.partial(jax.jit, static_argnums=0)
def apply(network, variables, *stack):
  return network.apply(variables, *stack, train=False)


@pytest.mark.parametrize('name', ['dfv_fv', 'dfv_diff'])
def test_the_coarser_maps_equal_the_published_ones(name, shared):
  path = shared / 'parity' / f'{name}.json'
  tensors, expected = state_dict(path), arrays(path.with_suffix('.npz'))
  model = make_model({'depth': {'name': 'dfv', 'differential': name == 'dfv_diff'}, 'align': {'name': 'none'}})
  variables, unused = variables_from(path, tensors, identify(path, tensors), variable_shapes(model))
  assert unused == ['feature_extraction.encoder.fc.bias', 'feature_extraction.encoder.fc.weight']
  inner = {kind: tree['depth'] for kind, tree in variables.items()}
  maps = apply(model.depth, inner, 2 * jnp.asarray(expected['stack']) - 1, jnp.asarray(expected['focus']))
  for depth, scale in zip(maps.pyramid, ('_s32', '_s16', '_s8', ''), strict=True):
    np.testing.assert_allclose(depth, expected[f'depth{scale}'], atol=1e-4)
  np.testing.assert_allclose(spread(maps.weights, jnp.asarray(expected['focus'])), expected['std'], atol=1e-4)


def test_parameters():
  shapes = variable_shapes(make_model({'depth': {'name': 'dfv'}, 'align': {'name': 'none'}}))['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 19_501_484 - 513_000
  assert (
    shapes
    == variable_shapes(make_model({'depth': {'name': 'dfv', 'differential': False}, 'align': {'name': 'none'}}))[
      'params'
    ]
  )


@pytest.mark.slow
@pytest.mark.parametrize('level', [1, 2, 3, 4])
def test_levels(level):
  network, variables = drawn(level=level)
  maps = apply(network, variables, images(), FOCUS)
  assert len(maps.pyramid) == level
  assert all(np.isfinite(depth).all() for depth in maps.pyramid)
  found = {name for name in variables['params'] if name.startswith(('decoder', 'volume'))}
  assert found == {f'{part}{scale}' for part in ('decoder', 'volume') for scale in range(level)}
  np.testing.assert_allclose(maps.weights.sum(1), 1, atol=1e-5)


def test_depth_follows_the_focus_coordinate():
  network, variables = drawn()
  depth = apply(network, variables, images(), FOCUS).pyramid[-1]
  other = apply(network, variables, images(), 3 - 2 * FOCUS).pyramid[-1]
  np.testing.assert_allclose(other, 3 - 2 * depth, atol=1e-5)


def test_cells_of_the_pyramid_pooling():
  assert pool_counts(16, 12) == [1, 2, 4, 6]
  assert pool_counts(5, 16, 12) == [1, 1, 1, 2]
  assert pool_counts(1, 1) == [1, 1, 1, 1]  # where the published network fails
  x = jnp.arange(2 * 5 * 4, dtype=jnp.float32).reshape(1, 2, 5, 4, 1)
  got = average_cells(x, (2, 2, 3))
  expected = [x[0, :, row : row + 2, :3, 0].mean() for row in (0, 2)]  # the last row and column are left over
  np.testing.assert_allclose(got[0, 0, :, 0, 0], expected)
