"""DefocusNet against what the published code computed, and what follows from its structure."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_weights import arrays, state_dict

from focal_jax.models.defocusnet import DefocusNet
from focal_jax.models.end_to_end import draw_variable, init_variables, variable_shapes
from focal_jax.models.published import identify, variables_from
from focal_jax.models.registry import make_model
from focal_jax.stack import FocalStack


def random_stack(frames=3, side=32):
  rng = np.random.default_rng(0)
  return FocalStack(
    images=rng.random((1, frames, side, side, 3), np.float32),
    focus=np.linspace(0.2, 2.0, frames, dtype=np.float32)[None],
    fov=np.ones((1, frames), np.float32),
  )


@functools.partial(jax.jit, static_argnums=0)
def predict(model, variables, stack):
  return model.apply(variables, stack, align=False)


@pytest.fixture(scope='module')
def small():
  model = make_model({'depth': {'name': 'defocusnet', 'channel_divisor': 8}, 'align': {'name': 'none'}})
  return model, init_variables(model, 0)


def test_equals_the_published_network(shared):
  path = shared / 'parity' / 'defocusnet.json'
  tensors, expected = state_dict(path), arrays(path.with_suffix('.npz'))
  network = identify(path, tensors)
  assert network.name == 'defocusnet'
  model = make_model(network.model)
  variables, unused = variables_from(path, tensors, network, variable_shapes(model))
  assert unused == ['conv_joint2_4.0.bias', 'conv_joint2_4.0.weight']
  stack = FocalStack(expected['stack'], expected['focus'], np.ones_like(expected['focus']))
  out = predict(model, variables, stack)
  np.testing.assert_allclose(out.depth / 3, expected['depth'], atol=1e-4)
  np.testing.assert_allclose(out.defocus, expected['defocus'], atol=1e-4)
  assert out.weights is None
  assert out.uncertainty is None


def test_parameters():
  counts = [
    sum(
      leaf.size
      for leaf in jax.tree.leaves(
        variable_shapes(
          make_model({'depth': {'name': 'defocusnet', 'channel_divisor': divisor}, 'align': {'name': 'none'}})
        )
      )
    )
    for divisor in (1, 2, 4)
  ]
  assert counts[0] == 3_729_042 - 6_928
  assert counts[1] / counts[0] == pytest.approx(1 / 4, rel=0.01)
  assert counts[2] / counts[0] == pytest.approx(1 / 16, rel=0.02)


def test_the_order_of_the_frames_matters_to_their_own_defocus_only(small):
  stack = random_stack()
  order = np.array([1, 0, 2])  # not the last, whose focus is the other end of the range
  moved = stack.replace(images=stack.images[:, order])
  model, variables = small
  out, again = predict(model, variables, stack), predict(model, variables, moved)
  np.testing.assert_allclose(again.defocus, out.defocus[:, order], atol=1e-6)


def test_in_units_of_the_focus_range_depth_follows_the_focus(small):
  model, variables = small
  stack = random_stack()
  out = predict(model, variables, stack)
  other = predict(model, variables, stack.replace(focus=5 - 3 * stack.focus))
  np.testing.assert_allclose(other.depth, 5 - 3 * out.depth, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(other.defocus, out.defocus, atol=1e-6)
  alike = predict(model, variables, stack.replace(focus=np.full_like(stack.focus, 2.0)))
  np.testing.assert_allclose(alike.depth, 2.0)


def test_rematerialised_gradients_are_the_same(small):
  _, variables = small
  stack = jax.tree.map(jnp.asarray, random_stack())
  inner = {kind: tree['depth'] for kind, tree in variables.items()}

  def loss(variables, remat):
    maps = DefocusNet(channel_divisor=8, remat=remat).apply(variables, stack.images, stack.focus, train=True)
    return jnp.mean(maps.pyramid[0] ** 2) + jnp.mean(maps.defocus**2)

  plain, remat = (jax.jit(jax.grad(loss), static_argnums=1)(inner, remat) for remat in (False, True))
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_initial_values():
  variables = flax.traverse_util.flatten_dict(
    init_variables(make_model({'depth': {'name': 'defocusnet'}, 'align': {'name': 'none'}}), 0)['params']
  )
  for path, value in variables.items():
    if path[-1] == 'bias':
      np.testing.assert_array_equal(value, np.float32(0.01))
    elif value.size > 1e5:
      taps, (inputs, outputs) = np.prod(value.shape[:-2]), value.shape[-2:]
      np.testing.assert_allclose(value.std(), np.sqrt(2 / (taps * (inputs + outputs))), rtol=0.02)
  assert draw_variable(np.random.default_rng(0), ('out', 'bias'), (1,), (1, 3, 3, 16, 1)) == 0  # the default differs
