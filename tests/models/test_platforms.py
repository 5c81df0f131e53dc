"""The lowering of a program depends on its target platform; here all are lowered on a CPU."""

import re
from unittest.mock import Mock

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import pytest

from focal_jax import backend, warp
from focal_jax.focus import classical
from focal_jax.models import conv
from focal_jax.models.alignment import AlignmentNetwork, NoAlignment
from focal_jax.models.blocks import Conv, ConvNorm, expected_focus, focus_distribution
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.end_to_end import EndToEnd, variable_shapes
from focal_jax.simulate import stacks
from focal_jax.simulate.stacks import map_stacks
from focal_jax.stack import FocalStack

STACK, KERNEL = jax.ShapeDtypeStruct((1, 4, 32, 64, 8), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 8, 8), jnp.float32)


def program(function, *arguments, platforms):
  """StableHLO."""
  return jax.export.export(jax.jit(function), platforms=platforms)(*arguments).mlir_module()


def kernels(text):
  """Shapes of the kernels of all convolutions."""
  found = re.findall(r'stablehlo\.convolution\(.*\) .* : \(tensor<[^>]*>, tensor<([\dx]+)xf32>\)', text)
  assert found
  return {tuple(map(int, shape.split('x'))) for shape in found}


PLANES, NATIVE, PACKED = (3, 3, 8, 24), (3, 3, 3, 8, 8), (3, 3, 3, 128, 128)


@pytest.mark.parametrize(('platform', 'expected'), [('cpu', PLANES), ('cuda', NATIVE), ('tpu', PACKED)])
def test_convolutions(platform, expected):
  assert kernels(program(conv.conv, STACK, KERNEL, platforms=[platform])) == {expected}


def test_one_program_for_all():
  assert kernels(program(conv.conv, STACK, KERNEL, platforms=['cpu', 'cuda', 'tpu'])) == {PLANES, NATIVE, PACKED}


@pytest.mark.parametrize(('platform', 'rank'), [('cpu', 4), ('cuda', 5), ('tpu', 5)])
def test_gradients_of_strided_and_transposed_convolutions(platform, rank):
  def loss(x, kernel):
    return jnp.sum(conv.conv_transpose(jnp.sin(conv.conv(x, kernel, stride=2)), kernel) ** 3)

  found = kernels(program(jax.grad(loss, (0, 1)), STACK, KERNEL, platforms=[platform]))
  assert {len(shape) for shape in found} == {rank}


def test_the_default_device_counts_and_not_the_default_backend(monkeypatch):
  """With a CPU selected where an accelerator exists, and the other way round."""
  cpu, tpu = jax.devices('cpu')[0], Mock(jax.Device, platform='tpu')
  monkeypatch.setattr(jax, 'local_devices', lambda backend=None: [cpu if backend == 'cpu' else tpu])
  assert backend.default_device() is tpu
  assert backend.compiler_options() == {}
  for chosen in (cpu, 'cpu'):
    with jax.default_device(chosen):
      assert backend.default_device() is cpu
      assert backend.compiler_options() == backend.compiler_options('cpu')
      assert backend.compiler_options('tpu') == {}


@pytest.mark.skipif(not backend.compiler_options('cpu'), reason='this XLA has no YNNPACK')
def test_ynnpack_computes_the_sums_of_training_steps_only():
  def compiled(training):
    options = backend.compiler_options('cpu', training=training)
    total = jax.jit(lambda x: jnp.sum(x, (0, 1)), compiler_options=options)
    return total.lower(jnp.ones((64, 64, 8))).compile().as_text()

  assert '__ynn_fusion' in compiled(training=True)
  assert '__ynn_fusion' not in compiled(training=False)


@pytest.mark.parametrize(('platform', 'gathers'), [('cpu', True), ('cuda', False), ('tpu', False)])
def test_warp(platform, gathers):
  arguments = jnp.ones((1, 2, 16, 16, 3)), jnp.ones((1, 2)), jnp.zeros((1, 2, 3))
  assert ('stablehlo.gather' in program(warp.warp, *arguments, platforms=[platform])) == gathers
  gradient = program(jax.grad(lambda *x: jnp.sum(warp.warp(*x) ** 2), (0, 2)), *arguments, platforms=[platform])
  assert ('stablehlo.gather' in gradient) == gathers
  assert 'stablehlo.scatter' not in gradient  # slow on all of them


@pytest.mark.parametrize(('platform', 'shifts'), [('cpu', True), ('cuda', True), ('tpu', False)])
def test_windows_of_focus_measures(platform, shifts):
  text = program(lambda x: classical.gaussian_window(x, 1.5), jnp.ones((2, 16, 16)), platforms=[platform])
  assert ('stablehlo.slice' in text) == shifts
  products = [line for line in text.splitlines() if 'stablehlo.dot_general' in line]
  assert len(products) == (0 if shifts else 2)
  assert all('HIGHEST' in line for line in products)


@pytest.mark.parametrize(('platform', 'loops'), [('cpu', True), ('cuda', False), ('tpu', False)])
def test_simulated_stacks(platform, loops):
  def stack(images):
    return FocalStack(jnp.sin(images), images[:, 0, 0, 0], images[:, 0, 0, 1])

  text = program(lambda x: map_stacks(stack, x).images, jnp.ones((4, 2, 8, 8, 3)), platforms=[platform])
  assert ('stablehlo.while' in text) == loops


@pytest.mark.parametrize(('platform', 'renderings'), [('cpu', 3), ('cuda', 1), ('tpu', 1)])
def test_levels_of_blur(platform, renderings):
  """For stacks simulated all at once, choosing the number of levels would compute all of the choices."""
  surfaces, radius = jnp.ones((2, 16, 4, 16)), jnp.ones((3, 2, 16, 16))
  text = program(lambda *x: stacks._through_disc(*x, 9.0), surfaces, radius, platforms=[platform])
  assert text.count('stablehlo.while') == renderings  # each loops over the surfaces


class SmallDepth(nn.Module):
  """One layer of each kind."""

  @nn.compact
  def __call__(self, images, focus, *, train):
    x = Conv(8, (1, 9, 9), dilation=2)(images)
    x = ConvNorm(16, stride=2)(x, train=train)
    x = ConvNorm(1, transpose=True)(x, train=train)
    weights = focus_distribution(x[..., 0])
    depth = expected_focus(weights, focus)
    return DepthMaps((depth,) * 4, weights)


IMAGES, NUMBERS = jax.ShapeDtypeStruct((1, 2, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.float32)


def predict_with(network):
  return lambda variables, images, focus, fov: network.apply(variables, FocalStack(images, focus, fov)).depth


def test_networks():
  """Not one plane on accelerators, and no volume on a CPU; channels of a TPU fill its lanes."""
  network = EndToEnd(SmallDepth(), AlignmentNetwork())
  found = {}
  for platform in ('cpu', 'cuda', 'tpu'):
    inputs = variable_shapes(network), IMAGES, NUMBERS, NUMBERS
    found[platform] = kernels(program(predict_with(network), *inputs, platforms=[platform]))
  assert {len(shape) for shape in found['cpu']} == {4}
  assert {len(shape) for shape in found['cuda'] | found['tpu']} == {5}
  assert max(max(shape[-2:]) for shape in found['cuda']) == 64
  assert all(max(shape[-2:]) in (96, 128) for shape in found['tpu']), found['tpu']


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('precision', ['default', 'highest'])
def test_precision_reaches_all_convolutions_and_their_gradients(platform, precision):
  network = EndToEnd(SmallDepth(), NoAlignment(), precision=precision)

  def loss(*arguments):
    return predict_with(network)(*arguments).sum()

  text = program(jax.grad(loss, (0, 1)), variable_shapes(network), IMAGES, NUMBERS, NUMBERS, platforms=[platform])
  lines = [line for line in text.splitlines() if 'stablehlo.convolution' in line]
  assert len(lines) == 9  # three layers: forward, and the gradients in stack and kernel
  assert all(('precision HIGHEST' in line) == (precision == 'highest') for line in lines)
