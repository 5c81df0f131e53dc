"""The PyTorch version computes the same as the published code and as our network."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is optional, see benchmarks/torch_peer.py')

import focal_jax  # noqa: E402
from benchmarks import torch_peer  # noqa: E402

UNUSED = ('DFF_net.SPP_module.redir3.', *(f'DFF_net.dres{i}.pre_conv.' for i in (2, 3, 4)))


@pytest.fixture(scope='module')
def path(shared):
  return shared / 'parity' / 'reference_a.pth'


@pytest.fixture(scope='module')
def model(path):
  return torch_peer.load_reference(path)


@pytest.fixture(scope='module')
def fixture(shared):
  with np.load(shared / 'parity' / 'reference_a.npz') as file:
    return dict(file)


@pytest.fixture(scope='module')
def inputs(fixture):
  """stack [1, 3, 10, 64, 96], focus and fov [1, 10]."""
  stack, focus, fov = (torch.from_numpy(fixture[name]) for name in ('stack_nchw', 'focus', 'fov'))
  return stack, focus.reshape(1, -1), fov.reshape(1, -1)


def random_inputs(batch, frames, height, width):
  rng = np.random.default_rng(0)
  stack = torch.from_numpy(rng.uniform(-1, 1, (batch, 3, frames, height, width)).astype('f4'))
  focus = torch.linspace(0.1, 1.0, frames).repeat(batch, 1)
  return stack, focus, torch.linspace(1.05, 1.0, frames).repeat(batch, 1)


@pytest.fixture(scope='module')
def trained():
  """A fresh network after one backward pass, its gradients in place; and the loss."""
  torch.manual_seed(0)
  model = torch_peer.EndToEnd().train()
  stack, focus, fov = random_inputs(2, 4, 64, 64)
  valid = torch.rand(2, 64, 64) > 0.3
  target = torch.where(valid, torch.rand(2, 64, 64), torch.nan)
  loss = torch_peer.training_loss(model(stack, focus, fov).pyramid, target, valid)
  loss.backward()
  return model, loss


@pytest.mark.parametrize('variant', ['plain', 'channels_last', 'onednn'])
@pytest.mark.parametrize(('align', 'name'), [(False, 'dff'), (True, 'e2e')])
@torch.no_grad()
def test_published_outputs(path, inputs, fixture, align, name, variant):
  stack, focus, fov = inputs
  model = torch_peer.load_reference(path)
  if variant == 'channels_last':
    stack, model = (x.to(memory_format=torch.channels_last_3d) for x in (stack, model))
  elif variant == 'onednn':
    model = torch_peer.use_onednn(model)
  out = model(stack, focus, fov, align=align)
  for level, depth in enumerate(out.pyramid, start=1):
    np.testing.assert_allclose(depth, fixture[f'{name}_d{level}'], atol=1e-4)
  if align:
    error = np.abs(out.aligned.numpy() - fixture['aligned_nchw'])
    assert error.max() < 1e-4
    assert error.mean() < 1e-6  # wrong padding or order would show here and not in the maximum


def test_field_of_view_crop(inputs, fixture):
  stack, _, fov = inputs
  field = torch_peer.displacement_field(fov, torch.zeros(1, 10, 3), 64, 96)
  np.testing.assert_allclose(torch_peer.warp(stack, field), fixture['fov_only_nchw'], atol=1e-4)


@torch.no_grad()
def test_two_stacks_equal_each_alone(model, inputs):
  first = inputs
  second = (inputs[0].flip(2, 3), inputs[1].flip(1) ** 2, 1 + 3 * (inputs[2] - 1))
  together = model(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
  for index, single in enumerate((first, second)):
    alone = model(*single)
    for depth, expected in zip(together.pyramid, alone.pyramid, strict=True):
      torch.testing.assert_close(depth[index], expected[0], atol=5e-5, rtol=0)
    torch.testing.assert_close(together.aligned[index], alone.aligned[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together.motion[index], alone.motion[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_one_frame_is_its_focus(model):
  stack, _, fov = random_inputs(1, 1, 32, 32)
  for depth in model(stack, torch.tensor([[0.7]]), fov).pyramid:
    torch.testing.assert_close(depth, torch.full((1, 32, 32), 0.7))


def test_parameter_counts():
  model = torch_peer.EndToEnd()

  def count(module):
    return sum(parameter.numel() for parameter in module.parameters())

  assert count(model.DFF_net) == 4_038_832
  assert count(model.optical_flow_aggregation) == 195_593
  assert sum(p.numel() for name, p in model.named_parameters() if name.startswith(UNUSED)) == 22_240


def test_gradients_reach_what_is_used(trained):
  for name, parameter in trained[0].named_parameters():
    if name.startswith(UNUSED):
      assert parameter.grad is None, name
    else:
      assert parameter.grad is not None, name
      assert torch.isfinite(parameter.grad).all(), name
      assert parameter.grad.abs().max() > 0, name


def test_training_updates_running_statistics(trained):
  for name, module in trained[0].named_modules():
    if isinstance(module, torch.nn.BatchNorm3d):
      assert module.num_batches_tracked == (0 if name.startswith(UNUSED) else 1), name
  torch.manual_seed(0)
  network = torch_peer.DepthNetwork()
  stem, norm = network.FM_measure.Focus_extraction[0]
  stack, focus, _ = random_inputs(2, 4, 64, 64)
  x = stem(stack).transpose(0, 1).flatten(1)
  with torch.no_grad():
    network.eval()(stack, focus)
    torch.testing.assert_close(norm.running_mean, torch.zeros(8))
    network.train()(stack, focus)
  torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(1))
  torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var(1))


def test_training_loss():
  target = torch.tensor([[[1.0, torch.nan]], [[3.0, 5.0]]])
  valid = torch.tensor([[[1, 0]], [[1, 1]]])
  pyramid = [torch.full((2, 1, 2), value, requires_grad=True) for value in (1.0, 2.0, 3.0, 4.0)]
  loss = torch_peer.training_loss(pyramid, target, valid)
  # Squared errors of the valid pixels: 0 4 16, 1 1 9, 4 0 4, 9 1 1.
  torch.testing.assert_close(loss, torch.tensor((0.3 * 20 + 0.5 * 11 + 0.7 * 8 + 11) / 3))
  loss.backward()
  assert all(torch.isfinite(depth.grad).all() for depth in pyramid)
  assert torch_peer.training_loss(pyramid, target, valid * 0) == 0


@pytest.mark.parametrize('align', [False, True])
@torch.no_grad()
def test_equals_ours(model, path, align):
  stack, focus, fov = random_inputs(1, 5, 64, 96)
  theirs = model(stack, focus, fov, align=align)
  images = stack[0].permute(1, 2, 3, 0).numpy()[..., ::-1] / 2 + 0.5  # BGR -1 .. 1 to RGB 0 .. 1
  ours = focal_jax.load(path).predict(images, focus[0].numpy(), fov[0].numpy(), align='network' if align else 'off')
  for depth, expected in zip(ours.pyramid, theirs.pyramid, strict=True):
    np.testing.assert_allclose(depth, expected[0], atol=1e-4)
  aligned = theirs.aligned[0].permute(1, 2, 3, 0).numpy()[..., ::-1] / 2 + 0.5
  np.testing.assert_allclose(ours.aligned, aligned, atol=1e-4)
  np.testing.assert_allclose(ours.motion, theirs.motion[0], atol=1e-4)


def test_the_benchmark_gives_both_the_same_weights():
  """As `benchmarks.run` sets them up: the peer's random weights, and ours read from its file."""
  from benchmarks.peer import Peer
  from benchmarks.settings import Settings
  from focal_jax.models.end_to_end import variable_shapes
  from focal_jax.models.published import INPUT_CONVENTION
  from focal_jax.models.registry import make_model
  from focal_jax.stack import FocalStack

  peer, network = Peer(Settings()), make_model(INPUT_CONVENTION)
  rng = np.random.default_rng(0)
  stack = FocalStack(
    images=jnp.asarray(rng.random((1, 3, 64, 64, 3), np.float32)),
    focus=jnp.linspace(0.1, 1.0, 3)[None],
    fov=jnp.linspace(1.04, 1.0, 3)[None],
  )
  variables = jax.tree.map(jnp.asarray, peer.variables(variable_shapes(network)))
  ours = network.apply(variables, stack, align=False)
  np.testing.assert_allclose(ours.depth, peer.depth(stack, align=False), atol=1e-4)


def test_benchmark_beside_the_peer(program, tmp_path):
  """Same weights, same inputs: both are in the table, each measured in its own process, and agree."""
  program('--only=alignment', '--rounds=1', '--frames=2', '--height=32', '--width=32', f'--out={tmp_path / "out"}')
  document = json.loads((tmp_path / 'out' / 'results.json').read_text())
  assert [row['implementation'] for row in document['rows']] == [
    'focal_jax', 'PyTorch eager', 'PyTorch eager, memory kept', 'PyTorch oneDNN', 'PyTorch oneDNN, memory kept'
  ]  # fmt: skip
  assert all(row['median_s'] > 0 for row in document['rows'])
  assert 0 < max(document['agreement'].values()) < 1e-3
