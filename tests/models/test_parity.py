"""The networks against what the published code computed from the same weights and input."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import api, warp
from focal_jax.errors import InputError
from focal_jax.models import published
from focal_jax.models.end_to_end import EndToEnd, variable_shapes
from focal_jax.models.torch_file import read_state_dict
from focal_jax.stack import checked_stack

TOLERANCE = 1e-4


@pytest.fixture(scope='module')
def fixture(shared):
  with np.load(shared / 'parity' / 'reference_a.npz') as file:
    return dict(file)


@pytest.fixture(scope='module')
def model(shared):
  return api.load(shared / 'parity' / 'reference_a.pth')


@pytest.fixture(scope='module')
def stack(fixture):
  """Images RGB 0 .. 1, as a user has them; the fixture holds BGR in -1 .. 1."""
  images = np.moveaxis(fixture['stack_nchw'][0], 0, -1)[..., ::-1] / 2 + 0.5
  return images, fixture['focus'].ravel(), fixture['fov'].ravel()


@pytest.mark.parametrize(('align', 'name'), [('off', 'dff'), ('network', 'e2e')])
def test_depth_maps(model, stack, fixture, align, name):
  out = model.predict(*stack, align=align)
  for level, depth in enumerate(out.pyramid, start=1):
    np.testing.assert_allclose(depth, fixture[f'{name}_d{level}'][0], atol=TOLERANCE)
  np.testing.assert_array_equal(out.depth, out.pyramid[-1])


def test_aligned_frames(model, stack, fixture):
  aligned = model.predict(*stack, align='network').aligned[..., ::-1] * 2 - 1
  error = np.abs(aligned - np.moveaxis(fixture['aligned_nchw'][0], 0, -1))
  assert error.max() < TOLERANCE
  assert error.mean() < 1e-6  # wrong padding or order would show here and not in the maximum


def test_field_of_view_crop(fixture):
  images, fov = jnp.moveaxis(jnp.asarray(fixture['stack_nchw']), 1, -1), jnp.asarray(fixture['fov'].reshape(1, -1))
  expected = np.moveaxis(fixture['fov_only_nchw'], 1, -1)
  np.testing.assert_allclose(warp.warp(images, fov), expected, atol=TOLERANCE)


def test_parameter_counts_and_unused(model, shared):
  """4,038,832 + 195,593 parameters are published, 22,240 of them unused by the forward pass."""
  shapes = variable_shapes(EndToEnd())['params']
  count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  tensors = read_state_dict(shared / 'parity' / 'reference_a.pth')
  unused = [tensors[name] for name in model.unused if not name.endswith(('running_mean', 'running_var'))]
  assert sum(tensor.size for tensor in unused) == 22_240
  assert count == 4_038_832 + 195_593 - 22_240


@pytest.mark.slow
def test_two_stacks_equal_each_alone(model, stack):
  """The published code mixes up the zoom of the stacks in a batch; ours must not."""
  images, focus, fov = stack
  first = checked_stack(images, focus, fov)
  second = checked_stack(images[:, ::-1].copy(), focus[::-1] ** 2, 1 + 3 * (fov - 1))
  both = jax.tree.map(lambda a, b: np.stack([a, b]), first, second)
  together = jax.device_get(jax.jit(model.network.apply)(model.variables, both))
  for index, single in enumerate((first, second)):
    alone = model.predict(single.images, single.focus, single.fov, 'network')
    # Rounding differs with the batch: products of other shapes add in another order.
    np.testing.assert_allclose(together.depth[index], alone.depth, atol=5e-5)
    np.testing.assert_allclose(together.aligned[index], alone.aligned, atol=1e-5)
    np.testing.assert_allclose(together.motion[index], alone.motion, atol=1e-5)


def test_missing_and_misshapen_tensors(shared):
  path = shared / 'parity' / 'reference_a.pth'
  tensors = read_state_dict(path)
  network, shapes = published.identify(path, tensors), variable_shapes(EndToEnd())
  assert network.name == 'won_jeon'
  name = 'DFF_net.dres3.conv2.0.weight'
  with pytest.raises(InputError, match=f"no tensor '{name}'"):
    published.variables_from(path, {k: v for k, v in tensors.items() if k != name}, network, shapes)
  with pytest.raises(InputError, match=rf"'{name}' has shape \(2, 2\)"):
    published.variables_from(path, tensors | {name: np.zeros((2, 2))}, network, shapes)
  with pytest.raises(InputError, match='2 tensors of no network that is known here'):
    published.identify(path, {'a.weight': np.zeros(1), 'b.weight': np.zeros(1)})


def test_every_module_is_named_once():
  names = published.module_names()
  assert len(set(names.values())) == len(names)
  modules = {'.'.join(key[:-1]) for key in flax.traverse_util.flatten_dict(variable_shapes(EndToEnd())['params'])}
  assert modules == set(names)
