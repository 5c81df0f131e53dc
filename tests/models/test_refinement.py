"""The depth network that refines the classical estimate: its result before training, and invariances."""

from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host import on_host
from scipy import ndimage

from focal_jax.focus import classical
from focal_jax.focus.fill import fill as push_pull
from focal_jax.models import refinement
from focal_jax.models.end_to_end import init_variables
from focal_jax.models.refinement import RefinementNetwork
from focal_jax.models.registry import make_model

SIZE = 32  # px: the least


def network(**settings):
  """(variables, images, focus) -> depth maps, compiled once for each shape."""
  return on_host(partial(RefinementNetwork(**settings).apply, train=False))


estimate = on_host(classical.depth_from_focus)  # (images, focus) -> depth, confidence


@pytest.fixture(scope='module')
def apply():
  return network()


@pytest.fixture(scope='module')
def trusted():
  """Median confidence of the classical estimate of `stack(5)`."""
  images, focus = stack(5)
  return float(np.median(estimate((images[0] + 1) / 2, focus[0])[1]))


@pytest.fixture(scope='module')
def holding(trusted):
  """`apply` of the network that keeps the classical depth from this confidence on."""
  return network(trusted_confidence=trusted)


def stack(frames, seed=0):
  rng = np.random.default_rng(seed)
  images = rng.uniform(-1, 1, (1, frames, SIZE, SIZE, 3)).astype(np.float32)
  return images, np.sort(rng.uniform(0, 2, (1, frames)).astype(np.float32))


@pytest.fixture(scope='module')
def shapes():
  return jax.eval_shape(partial(RefinementNetwork().init, train=False), jax.random.key(0), *stack(2))


@pytest.fixture(scope='module')
def drawn(shapes):
  """Variables of random numbers, none of them 0."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: np.asarray(rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1)), np.float32),
    shapes,
  )


def with_shares(shapes, *logits):
  """Variables that are 0 except for the bias that selects a distribution."""
  flat = flax.traverse_util.flatten_dict(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes), sep='/')
  bias = (np.asarray(logits) - np.asarray(refinement.SHARES)) / refinement.HEAD_SCALE
  flat['params/shares/out/bias'] = np.append(bias, 0.0).astype(np.float32)
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def own_score(images):
  """[N, H, W]: the sum of the focus curves of the only stack."""
  return on_host(lambda images: sum(refinement.focus_curves(refinement.luminance(images))[0]))(images)[0]


def test_classical_share_alone_is_the_classical_estimate(apply, shapes):
  images, focus = stack(5)
  maps = apply(with_shares(shapes, 30, 0, 0), images, focus)
  depth, confidence = estimate((images[0] + 1) / 2, focus[0])
  np.testing.assert_allclose(maps.pyramid[-1][0], depth, atol=1e-5)
  assert np.all(maps.confidence[0] <= confidence + 1e-5)


def test_own_distribution_alone_is_the_softmax_of_the_curves(apply, shapes):
  images, focus = stack(5)
  maps = apply(with_shares(shapes, 0, 30, 0), images, focus)
  score = own_score(images)
  top = score.max(0) + refinement.BEYOND_SCORE
  scores = np.stack([top, top, *score, top, top])
  weights = np.exp(scores) / np.exp(scores).sum(0)
  first, last = focus[0, [0, -1]]
  extent = last - first
  places = [first - 0.36 * extent, first - 0.12 * extent, *focus[0], last + 0.12 * extent, last + 0.36 * extent]
  np.testing.assert_allclose(maps.pyramid[-1][0], np.einsum('nhw,n->hw', weights, places), atol=1e-4)
  np.testing.assert_allclose(maps.pyramid[-2], maps.pyramid[-1], atol=1e-6)
  folded = np.stack([weights[:3].sum(0), *weights[3:-3], weights[-3:].sum(0)])
  np.testing.assert_allclose(maps.weights[0], folded, atol=1e-5)


def classical_share(confidence, trusted):
  """The share of the classical estimate by its mean confidence around each pixel: a half at the trusted confidence."""
  px = refinement.TRUST_PX
  blocks = confidence.reshape(SIZE // px, px, SIZE // px, px).mean((1, 3))
  at = np.clip((np.arange(SIZE) + 0.5) / px - 0.5, 0, SIZE // px - 1)  # bilinear, edges repeated
  around = ndimage.map_coordinates(blocks, np.meshgrid(at, at, indexing='ij'), order=1)
  return 1 / (1 + np.exp(-(around - trusted) / refinement.TRUST_WIDTH))


def test_confident_classical_depth_is_taken_as_it_is(apply, trusted, drawn, monkeypatch):
  monkeypatch.setattr(refinement, 'DIFFERENCE', (9.0, 10.0))  # never overruled
  images, focus = stack(5)
  classical_depth, confidence = estimate((images[0] + 1) / 2, focus[0])
  free, held = (
    predict(drawn, images, focus).pyramid[-1][0] for predict in (apply, network(trusted_confidence=trusted))
  )
  share = classical_share(confidence, trusted)
  assert np.abs(free - classical_depth).max() > 0.1
  np.testing.assert_allclose(held, share * classical_depth + (1 - share) * free, atol=2e-5)


def test_confident_classical_depth_is_overruled_by_a_network_sure_of_another(holding, trusted, shapes):
  images, focus = stack(5)
  classical_depth, confidence = estimate((images[0] + 1) / 2, focus[0])
  variables = with_shares(shapes, 0, 30, 0)  # its own distribution alone, which is certain of a place beyond the sweep
  variables['params']['near']['out']['bias'] = np.array([0.0, 1e4], np.float32)
  extent = focus[0, -1] - focus[0, 0]
  own = focus[0, -1] + refinement.BEYOND[-1] * extent
  first, last = refinement.DIFFERENCE
  overruled = np.clip(((own - classical_depth) / extent - first) / (last - first), 0, 1)
  assert np.ptp(overruled) > 0.3
  certain = 1 - 1e-3 / refinement.UNSURE  # the standard deviation has a floor
  share = classical_share(confidence, trusted) * (1 - certain * overruled)
  held = holding(variables, images, focus).pyramid[-1][0]
  np.testing.assert_allclose(held, share * classical_depth + (1 - share) * own, atol=0.01 * extent)


@pytest.mark.parametrize('trusts', [False, True])
def test_confidence_is_low_where_the_two_estimates_differ(apply, holding, trusted, shapes, trusts):
  """For either estimate. Evidence of the classical one counts in full from the trusted confidence on."""
  images, focus = stack(5)
  predict = holding if trusts else apply
  of_classical, of_own = (predict(with_shares(shapes, *logits), images, focus) for logits in ((30, 0, 0), (0, 30, 0)))
  depth, evidence = estimate((images[0] + 1) / 2, focus[0])
  difference = of_classical.pyramid[-2][0] - depth
  if trusts:
    evidence = np.minimum(evidence / trusted, 1)

  mean = np.einsum('nhw,n->hw', of_classical.weights[0], focus[0])
  variance = np.einsum('nhw,nhw->hw', of_classical.weights[0], (focus[0][:, None, None] - mean) ** 2)
  widest = (focus[0, -1] - focus[0, 0]) / 2
  expected = evidence * np.clip(1 - np.sqrt(variance + difference**2) / widest, 0, 1)
  assert np.ptp(expected) > 0.05
  np.testing.assert_allclose(of_classical.confidence[0], expected, atol=1e-4)
  if not trusts:  # else the classical estimate is taken here and there, whatever the shares
    assert np.all(of_own.confidence[0] <= np.clip(1 - np.abs(difference) / widest, 0, 1) + 1e-4)


def test_a_frame_points_beside_itself(apply, shapes):
  images, focus = stack(5)
  variables = with_shares(shapes, 0, 30, 0)
  plain = apply(variables, images, focus)
  offset = 0.5  # frames
  raw = refinement.FARTHEST_OFFSET * np.arctanh(offset / refinement.FARTHEST_OFFSET) / refinement.HEAD_SCALE
  variables['params']['score0']['bias'][-1] = raw
  moved = apply(variables, images, focus)
  # Beside its neighbours', half the difference of the two; at the ends, the difference to the one there is.
  spacing = np.gradient(focus[0])
  weights = plain.weights[0]
  score = own_score(images)
  at_places = np.exp(score.max(0) + refinement.BEYOND_SCORE)
  inside = 1 / (np.exp(score).sum(0) + 4 * at_places)
  expected = plain.pyramid[-1][0] + offset * np.einsum('nhw,n->hw', np.exp(score) * inside, spacing)
  np.testing.assert_allclose(moved.pyramid[-1][0], expected, atol=1e-4)
  np.testing.assert_allclose(moved.weights[0], weights, atol=1e-6)


def test_depth_reaches_beyond_the_sweep(apply, shapes):
  images, focus = stack(5)
  variables = with_shares(shapes, 0, 30, 0)
  variables['params']['near']['out']['bias'] = np.array([0.0, 1e4], np.float32)
  depth = apply(variables, images, focus).pyramid[-1]
  np.testing.assert_allclose(depth, focus[0, -1] + 0.36 * (focus[0, -1] - focus[0, 0]), rtol=1e-4)
  variables['params']['near']['out']['bias'] = np.zeros(2, np.float32)
  variables['params']['far']['out']['bias'] = np.array([1e4, 0.0], np.float32)
  depth = apply(variables, images, focus).pyramid[-1]
  np.testing.assert_allclose(depth, focus[0, 0] - 0.12 * (focus[0, -1] - focus[0, 0]), rtol=1e-4)


@pytest.mark.parametrize('frames', [2, 5])
def test_any_number_of_frames(apply, drawn, frames):
  images, focus = stack(frames)
  maps = apply(drawn, images, focus)
  assert [depth.shape for depth in maps.pyramid] == 5 * [(1, SIZE, SIZE)]
  assert maps.weights.shape == (1, frames, SIZE, SIZE)
  np.testing.assert_allclose(maps.weights.sum(1), 1, atol=1e-5)
  far, near = refinement.positions_beyond(jnp.asarray(focus))
  reach = refinement.FARTHEST_OFFSET * np.ptp(focus)  # no spacing is wider
  low, high = min(far[0, 0], focus[0, 0] - reach), max(near[0, -1], focus[0, -1] + reach)
  for depth in maps.pyramid:
    assert low - 1e-4 <= depth.min() <= depth.max() <= high + 1e-4
  assert 0 <= maps.confidence.min() <= maps.confidence.max() <= 1
  assert np.ptp(maps.pyramid[-1]) > 0.01 * np.ptp(focus)


def test_depth_follows_the_unit_of_focus(apply, drawn):
  images, focus = stack(5)
  depth = apply(drawn, images, focus).pyramid[-1]
  np.testing.assert_allclose(apply(drawn, images, 3 * focus + 1).pyramid[-1], 3 * depth + 1, rtol=1e-5, atol=1e-5)


def test_stacks_of_a_batch_are_independent(apply, drawn):
  """A stack has exactly the same depth beside any other, as the same program computes it."""
  stacks = [stack(5, seed) for seed in (5, 6, 7)]

  def depth(*numbers: int):
    images, focus = zip(*(stacks[n] for n in numbers), strict=True)
    return np.asarray(apply(drawn, np.concatenate(images), np.concatenate(focus)).pyramid[-1])

  together = depth(0, 1)
  np.testing.assert_array_equal(together[0], depth(0, 2)[0])
  np.testing.assert_array_equal(together[1], depth(2, 1)[1])
  assert not np.allclose(together[0], together[1], atol=0.1)


def test_unknown_depth_is_filled_from_its_surroundings():
  """As the classical depth, with the prior of the network, each value by itself."""
  rng = np.random.default_rng(0)
  value, weight = rng.random((1, 3, 11, 14)).astype(np.float32), rng.random((1, 1, 11, 14)).astype(np.float32)
  weight[..., 2:9, 3:12] = 0
  filled = np.asarray(jax.jit(refinement.fill)(value, weight))
  one_by_one = jax.jit(lambda value, weight: push_pull(value, weight, refinement.FILL_PRIOR, 0.0))
  for k in range(3):
    expected = one_by_one(value[0, k], weight[0, 0])
    np.testing.assert_allclose(filled[0, k], expected, atol=1e-5)


def test_gradient_of_a_fill_is_finite_where_nothing_is_known():
  value = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 16, 16)), jnp.float32)

  def total(logit):
    return jnp.sum(refinement.fill(value, jax.nn.sigmoid(jnp.full((1, 1, 16, 16), logit))) ** 2)

  gradient = jax.jit(jax.grad(total))
  for logit in (-100.0, -90.0, -40.0, 0.0, 100.0):
    assert np.isfinite(gradient(logit))


def test_a_model_starts_with_branches_that_take_part():
  variables = init_variables(make_model({'depth': {'name': 'refined'}}), 0)
  flat = flax.traverse_util.flatten_dict(variables['params']['depth'], sep='/')
  gains = [value for name, value in flat.items() if name.endswith('gain')]
  assert len(gains) == 11
  np.testing.assert_allclose(gains, refinement.RESIDUAL_GAIN)
  assert np.ptp(flat['stem/conv/kernel']) > 0
