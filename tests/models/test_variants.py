"""Ablations, bfloat16 and rematerialisation: what they change, and that they change nothing else."""

import functools
import re

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import warp
from focal_jax.models import blocks, conv
from focal_jax.models.alignment import ALPHA_SCALE, AlignmentNetwork, MetadataAlignment, MotionHead, NoAlignment
from focal_jax.models.depth import DepthNetwork
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.end_to_end import EndToEnd, init_variables, variable_shapes
from focal_jax.models.registry import make_model
from focal_jax.stack import FocalStack

NORM = (1 + 1e-5) ** -0.5  # what batch normalisation with its first statistics multiplies by


def normal(seed, *shape):
  return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def random_variables(module, *arguments, **options):
  """As `module.init`, which would compile each operation: random kernels, and initial values for the rest."""
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments, **options))
  variables = {}
  for seed, (key, leaf) in enumerate(flax.traverse_util.flatten_dict(shapes).items()):
    draw = np.random.default_rng(seed).normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
    value = draw if key[-1] == 'kernel' else np.full(leaf.shape, key[-1] in ('scale', 'var'))
    variables[key] = np.asarray(value, leaf.dtype)
  return flax.traverse_util.unflatten_dict(variables)


def flatten(shapes):
  return flax.traverse_util.flatten_dict(shapes, sep='/')


@pytest.fixture(scope='module')
def full():
  """Shapes and types of the variables of the whole network."""
  return variable_shapes(EndToEnd())


def test_variables_do_not_depend_on_dtype_and_remat(full):
  assert variable_shapes(EndToEnd(DepthNetwork(remat=True), AlignmentNetwork(remat=True), dtype=jnp.bfloat16)) == full
  assert {leaf.dtype for leaf in jax.tree.leaves(full)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
  ('model', 'removed'),
  [
    ({'align': {'name': 'metadata'}, 'depth': {'downsampling': 'pooling'}}, r'alignment/|depth/down[23]/strided/'),
    ({'align': {'name': 'none'}, 'depth': {'downsampling': 'stride'}}, r'alignment/|depth/down[23]/pooled/'),
    ({'depth': {'detection': 'plane'}}, r'depth/detect[123]/attention'),
    ({'depth': {'detection': 'attention'}}, r'depth/detect[123]/plane'),
    ({'depth': {'detection': 'none'}}, r'depth/detect[123]/'),
  ],
)
def test_an_ablation_has_all_other_variables(full, model, removed):
  full = flatten(full)
  expected = {name: leaf for name, leaf in full.items() if not re.match(rf'(params|batch_stats)/({removed})', name)}
  assert 0 < len(expected) < len(full)
  assert flatten(variable_shapes(make_model(model))) == expected


def test_parameter_counts_of_the_exchangeable_parts(full):
  def count(pattern):
    return sum(leaf.size for name, leaf in flatten(full).items() if re.match(f'params/depth/{pattern}', name))

  assert count(r'detect\d/plane') == sum(2 * (9 * c * c + 2 * c) for c in (8, 16, 32))
  assert count(r'detect\d/attention') == sum((3 + 1) * c * c for c in (8, 16, 32))
  for part in ('strided', 'pooled'):
    assert count(rf'down\d/{part}') == sum(27 * c * 2 * c + 2 * 2 * c for c in (8, 16))


def apply_identities(block, x, kernels):
  """`block` with kernels that are 0 but for the identity at one tap."""
  shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
  variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  for key, value in flax.traverse_util.flatten_dict(variables).items():
    if key[-1] == 'kernel':
      value[kernels.get(key[1], tuple(n // 2 for n in value.shape[:3]))] = np.eye(x.shape[-1])
    elif key[-1] in ('scale', 'var'):
      value[...] = 1
  return jax.jit(functools.partial(block.apply, train=False))(variables, x)


def relu(x):
  return np.maximum(x, 0)


def plane(x):
  return relu(x + NORM**2 * relu(x))


def attention(x):
  return x + relu(np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1))


@pytest.mark.parametrize(
  ('block', 'expected'),
  [
    (blocks.SharpRegionDetection, lambda x: attention(plane(x))),
    (blocks.PlaneDetection, plane),
    (blocks.AttentionDetection, attention),
    (blocks.NoDetection, lambda x: x),
  ],
)
def test_detection_in_closed_form(block, expected):
  """Attention uses the previous frame."""
  x = normal(0, 1, 3, 4, 6, 2)
  y = apply_identities(block(2), x, {'attention1': (0, 0, 0)})
  np.testing.assert_allclose(y, expected(np.asarray(x)), atol=1e-6)


def strided(x):
  return NORM * x[:, :, ::2, ::2]


def pooled(x):
  return NORM * x.reshape(1, 3, 2, 2, 3, 2, 2).max((3, 5))


@pytest.mark.parametrize(
  ('block', 'expected'),
  [
    (blocks.EffectiveDownsampling, lambda x: relu(strided(x) + pooled(x))),
    (blocks.StridedDownsampling, lambda x: relu(strided(x))),
    (blocks.PooledDownsampling, lambda x: relu(pooled(x))),
  ],
)
def test_downsampling_in_closed_form(block, expected):
  x = normal(0, 1, 3, 4, 6, 2)
  np.testing.assert_allclose(apply_identities(block(2), x, {}), expected(np.asarray(x)), atol=1e-6)


@pytest.mark.parametrize('transform', [lambda function: function, jax.jit])
def test_no_alignment_is_the_identity_bit_for_bit(transform):
  fov = np.concatenate([np.float32([1e-3, 0.3, 0.7, 1.0, 1.1, 2.7, 300.0]), np.exp(np.asarray(normal(1, 50)))])
  fov = jax.device_put(fov[None])
  images = normal(0, 1, fov.size, 5, 8, 3)

  @transform
  def align(images, fov):
    return warp.warp(images, fov, NoAlignment().apply({}, images, fov, train=False))

  np.testing.assert_array_equal(align(images, fov), images)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('alignment', [MetadataAlignment(), NoAlignment()])
def test_frames_by_metadata_or_as_they_are(alignment, dtype):
  seen = []

  class Mean(nn.Module):
    """Stands in for the depth network."""

    def __call__(self, images, focus, *, train):
      seen.append((images.shape, images.dtype))
      grey = images.astype(jnp.float32).mean(-1)
      return DepthMaps((grey.mean(1),) * 4, jnp.ones_like(grey) / grey.shape[1])

  images = jnp.asarray(np.random.default_rng(0).random((1, 3, 21, 34, 3), np.float32))
  stack = FocalStack(images=images, focus=jnp.arange(3.0)[None], fov=jnp.array([[1.3, 0.8, 1.0]]))
  model = EndToEnd(Mean(), alignment, dtype=dtype)
  prediction = jax.jit(model.apply)({}, stack)
  assert seen == [((1, 3, 32, 64, 3), dtype)]
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(prediction))
  if isinstance(alignment, NoAlignment):
    np.testing.assert_allclose(prediction.aligned, images, atol=1e-7)
    np.testing.assert_array_equal(prediction.coverage, 1.0)
  else:
    # What comes from outside is mid-grey to the network, black being -1.
    expected = np.asarray(jax.jit(warp.warp)(2 * images - 1, stack.fov)) / 2 + 0.5
    # Positions up to 34 px are multiples of 3.8e-6.
    np.testing.assert_allclose(prediction.aligned, expected, atol=4e-6)
    coverage = np.asarray(jax.jit(warp.warp)(jnp.ones_like(images), stack.fov))[..., 0]
    np.testing.assert_allclose(prediction.coverage, coverage, atol=4e-6)
    assert prediction.coverage.min() < 0.1


def test_each_pass_estimates_the_remaining_motion():
  """With an alignment that finds half of the motion, two passes find three quarters: bright squares come together."""
  truth = jnp.array([[[0.0, 8.0, -4.0], [0.0, -12.0, 4.0], [0.0, 0.0, 0.0]]])

  class Half(nn.Module):
    def __call__(self, images, fov, *, size, train):
      """Half the distance from the centre of the bright pixels to that in the last frame."""
      weight = jnp.where(images[..., 0] > 0.4, images[..., 0], 0.0)
      y, x = jnp.meshgrid(*map(jnp.arange, weight.shape[2:]), indexing='ij')
      centre = jnp.stack([(weight * axis).sum((2, 3)) / weight.sum((2, 3)) for axis in (x, y)], -1)
      assert fov.shape == images.shape[:2]
      return jnp.concatenate([jnp.zeros((*fov.shape, 1)), (centre[:, -1:] - centre) / 2], axis=-1)

  square = jnp.zeros((1, 3, 64, 64, 3)).at[:, :, 26:38, 26:38].set(1.0)
  images = jax.jit(warp.warp)(square, jnp.ones((1, 3)), -truth)
  stack = FocalStack(images=images, focus=jnp.arange(3.0)[None], fov=jnp.ones((1, 3)))
  for passes, share in ((1, 0.5), (2, 0.75), (3, 0.875)):
    model = EndToEnd(alignment=Half(), motion_passes=passes)
    motion = jax.jit(functools.partial(model.apply, method='estimate_motion'))({}, stack)
    np.testing.assert_allclose(motion, share * truth, atol=0.02)


@pytest.mark.parametrize('dilation', [1, 2])
def test_receptive_field_of_the_first_layer(dilation):
  """A single bright pixel changes the result where it is under one of the 9 x 9 taps, dilation px apart."""
  model = DepthNetwork(stem_dilation=dilation)
  variables = {kind: tree['depth'] for kind, tree in init_variables(EndToEnd(), 0).items()}

  @jax.jit  # of all that is computed only the layer's own result is left
  def stem(images):
    _, seen = model.apply(
      variables,
      images,
      jnp.array([[0.0, 1.0]]),
      train=False,
      capture_intermediates=lambda module, _: module.name == 'stem',
      mutable=['intermediates'],
    )
    return seen['intermediates']['stem']['__call__'][0]

  answer = stem(jnp.zeros((1, 2, 32, 32, 3)).at[0, 0, 15, 16].set(1.0))
  expected = np.zeros((32, 32), bool)
  expected[15 - 4 * dilation : 16 + 4 * dilation : dilation, 16 - 4 * dilation : 17 + 4 * dilation : dilation] = True
  np.testing.assert_array_equal(np.any(np.abs(answer[0, 0]) > 1e-4, axis=-1), expected)


class Chain(nn.Module):
  """A block of one array, and one of several with an option."""

  remat: bool

  @nn.compact
  def __call__(self, x, fov):
    run = functools.partial(blocks.apply_block, train=True, remat=self.remat)
    x = run(blocks.SharpRegionDetection(3, name='detect'), x)
    head = MotionHead(name='head')
    return run(head, x, fov, jnp.zeros((*fov.shape, 3)), size=(7, 8))


def test_remat_changes_no_value_and_no_gradient():
  x, fov = normal(0, 1, 2, 8, 8, 3), jnp.array([[1.1, 1.0]])
  variables = random_variables(Chain(False), x, fov)

  @functools.partial(jax.jit, static_argnums=0)
  def run(remat, params, x):
    def loss(params, x):
      motion, updates = Chain(remat).apply(variables | {'params': params}, x, fov, mutable=['batch_stats'])
      return jnp.sum(jnp.sin(motion)), updates

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

  plain, again = (run(remat, variables['params'], x) for remat in (False, True))
  assert jax.tree.structure(plain) == jax.tree.structure(again)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain[1])) > 0.1
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(('network', 'part'), [(DepthNetwork, 'depth'), (AlignmentNetwork, 'alignment')])
def test_remat_keeps_less_for_the_backward_pass(full, network, part):
  """Bytes held by the pullback, of which 16 MiB are the depth network's parameters."""
  variables = {collection: tree[part] for collection, tree in full.items()}
  images, numbers = jax.ShapeDtypeStruct((1, 2, 256, 256, 3), jnp.float32), jnp.ones((1, 2))
  kept = {}
  for remat in (False, True):
    apply = functools.partial(network(remat=remat).apply, train=True, mutable=['batch_stats'])

    def pullback(variables, images, apply=apply):
      return jax.vjp(lambda variables: apply(variables, images, numbers)[0], variables)[1]

    leaves = jax.tree.leaves(jax.eval_shape(pullback, variables, images))
    kept[remat] = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
  assert kept[True] < 0.25 * kept[False]


@pytest.mark.parametrize(
  ('function', 'kernel_size'),
  [
    (functools.partial(conv.conv, form='planes'), (3, 3, 3)),
    (functools.partial(conv.conv, form='planes', stride=2), (1, 3, 3)),
    (functools.partial(conv.conv, form='native', stride=2), (3, 3, 3)),
    (functools.partial(conv.conv_transpose, form='planes'), (3, 3, 3)),
  ],
)
def test_conv_gradients_in_bfloat16(function, kernel_size):
  """Against float32, from the same numbers: the result and both gradients are right to bfloat16's 8 bits."""
  x, kernel = (v.astype(jnp.bfloat16) for v in (normal(0, 1, 3, 4, 6, 4), normal(1, *kernel_size, 4, 5)))

  @jax.jit
  def run(x, kernel):
    y, pullback = jax.vjp(function, x, kernel)
    return y, *pullback(y)

  results = [run(x.astype(dtype), kernel.astype(dtype)) for dtype in (jnp.float32, jnp.bfloat16)]
  for expected, value in zip(*results, strict=True):
    assert value.dtype == jnp.bfloat16
    value, expected = (np.asarray(x).astype(np.float32) for x in (value, expected))
    np.testing.assert_allclose(value, expected, atol=2**-7 * np.abs(expected).max())


def test_weight_gradients_are_summed_in_float32():
  """2400 ones: a sum in bfloat16, four by four, would stay at 1024."""
  x, kernel = jnp.ones((1, 600, 2, 2, 1), jnp.bfloat16), jnp.ones((1, 1, 1, 1, 1), jnp.bfloat16)
  y, pullback = jax.vjp(lambda w: conv.conv(x, w, form='planes'), kernel)
  assert pullback(jnp.ones_like(y))[0].item() == 2400


class Stage(nn.Module):
  @nn.compact
  def __call__(self, x, *, train):
    x = blocks.SharpRegionDetection(8, name='detect')(x, train=train)
    return blocks.EffectiveDownsampling(16, name='down')(x, train=train)


def test_blocks_in_bfloat16():
  """Result, statistics and gradients of the parameters against float32, at the network's own number of channels."""
  x = normal(0, 1, 3, 32, 32, 8)
  variables = random_variables(Stage(), x, train=False)

  @functools.partial(jax.jit, static_argnums=1)
  def run(variables, dtype):
    y, updates = Stage().apply(variables, x.astype(dtype), train=True, mutable=['batch_stats'])

    # Running statistics: those of the batch would make this loss nearly a constant, and its gradient a difference.
    def loss(params):
      return jnp.mean(Stage().apply(variables | {'params': params}, x.astype(dtype), train=False) ** 2)

    return y, updates, jax.grad(loss)(variables['params'])

  (y32, *rest32), (y16, *rest16) = (run(variables, dtype) for dtype in (jnp.float32, jnp.bfloat16))
  assert (y32.dtype, y16.dtype) == (jnp.float32, jnp.bfloat16)

  def deviation(a, b):
    a, b = (np.asarray(x).astype(np.float32).ravel() for x in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(a)

  assert 2**-10 < deviation(y32, y16) < 2**-7
  for a, b in zip(jax.tree.leaves(rest32), jax.tree.leaves(rest16), strict=True):
    assert b.dtype == jnp.float32
    assert deviation(a, b) < 0.05


def test_motion_is_float32_whatever_the_features_are():
  """Shifts that bfloat16 would round to steps of 1/4 px go through a head that answers with its bias."""
  features, fov = normal(0, 1, 2, 8, 8, 2).astype(jnp.bfloat16), jnp.ones((1, 2))
  head = MotionHead()
  so_far = jnp.full((1, 2, 3), 40.123)
  variables = random_variables(head, features, fov, so_far, size=(8, 8), train=False)
  bias = np.array([33.33, -50.01, 7.777], np.float32)
  variables['params']['motion'] = {'kernel': jnp.zeros((1, 3, 3, 4, 3)), 'bias': jnp.asarray(bias)}
  motion = jax.jit(functools.partial(head.apply, size=(8, 8), train=False))(variables, features, fov, so_far)
  assert motion.dtype == jnp.float32
  np.testing.assert_allclose(motion, np.tile(bias * [ALPHA_SCALE, 1, 1], (1, 2, 1)), rtol=1e-6)


def test_the_network_in_bfloat16(full):
  """Types of the outputs, of the parameters' gradients, and of all convolutions, forward and backward."""
  model = EndToEnd(dtype=jnp.bfloat16)
  stack = FocalStack(images=jnp.zeros((1, 2, 32, 32, 3)), focus=jnp.zeros((1, 2)), fov=jnp.ones((1, 2)))

  def loss(params, batch_stats):
    variables = {'params': params, 'batch_stats': batch_stats}
    results = model.apply(variables, stack, train=True, mutable=['batch_stats'])
    return jnp.sum(results[0].depth), jax.tree.leaves(results)

  jaxpr = jax.make_jaxpr(jax.grad(loss, has_aux=True))(full['params'], full['batch_stats'])
  assert {leaf.dtype for leaf in jaxpr.out_avals} == {jnp.dtype(jnp.float32)}
  types = re.findall(r':(\w+)\[[\d,]+\] = conv(?:_to_input|_to_kernel)?\[', str(jaxpr))
  assert set(types) == {'bf16'}
  assert len(types) > 100
