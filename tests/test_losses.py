"""Losses against loops over pixels, and their gradients where roots and quotients could break."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import losses, warp
from focal_jax.errors import InputError
from focal_jax.losses import PENALTIES, LossSettings
from focal_jax.recipes import default
from focal_jax.stack import FocalStack, Prediction

motion_error = jax.jit(losses.motion_error, static_argnums=(2, 3))
unit_focus = jax.jit(losses.unit_focus)
depth_sums = jax.jit(losses.depth_sums, static_argnums=2)
penalty = jax.jit(losses.penalty, static_argnums=(1, 2))
depth_counts = jax.jit(losses.depth_counts, static_argnums=1)
prediction_sums = jax.jit(losses.prediction_sums, static_argnums=2)
prediction_counts = jax.jit(losses.prediction_counts, static_argnums=1)
training_stack = jax.jit(losses.training_stack, static_argnums=1)
defocus_target = jax.jit(losses.defocus_target, static_argnums=1)
smoothness = jax.jit(losses.smoothness)
PUBLISHED = LossSettings()
WITH_SLOPES = LossSettings(gradient_weight=0.5, gradient_scales=3)


def random_maps(seed=0, shape=(2, 5, 6)):
  """D1 .. D4, and a stack with a target and weights of which a third is 0 and one is neither 0 nor 1."""
  rng = np.random.default_rng(seed)
  pyramid = [jnp.asarray(rng.random(shape), jnp.float32) for _ in range(4)]
  valid = (rng.random(shape) < 0.7).astype(np.float32)
  valid[1, 2, 3] = 0.25
  return pyramid, stack_with(rng.random(shape), valid)


def stack_with(target, valid):
  """A stack of which only the target and its weight are used."""
  batch, height, width = target.shape
  target, valid = jnp.asarray(target, jnp.float32), jnp.asarray(valid, jnp.float32)
  ones = jnp.ones((batch, 2))
  return FocalStack(images=jnp.zeros((batch, 2, height, width, 3)), focus=ones, fov=ones, target=target, valid=valid)


def whole_loss(pyramid, stack, settings):
  """As the module says that the loss follows from sums and counts."""
  sums, counts = depth_sums(pyramid, stack, settings), depth_counts(stack, settings)
  assert sums.keys() == counts.keys()
  loss = sums['depth'] / counts['depth']
  return loss + settings.gradient_weight * sums['gradient'] / counts['gradient'] if 'gradient' in sums else loss


value_and_grad = jax.jit(jax.value_and_grad(whole_loss), static_argnums=2)


def test_the_published_loss():
  """Mean squared error over all valid pixels of the batch, of D1 .. D4 with their weights."""
  pyramid, stack = random_maps()
  target, valid = np.asarray(stack.target, np.float64), np.asarray(stack.valid, np.float64)
  expected = 0.0
  for weight, depth in zip((0.3, 0.5, 0.7, 1.0), pyramid, strict=True):
    for b, y, x in np.ndindex(target.shape):
      expected += weight * valid[b, y, x] * (float(depth[b, y, x]) - target[b, y, x]) ** 2
  sums = depth_sums(pyramid, stack, PUBLISHED)
  counts = depth_counts(stack, PUBLISHED)
  assert sums.keys() == counts.keys() == {'depth'}
  np.testing.assert_allclose(sums['depth'], expected, rtol=1e-5)
  np.testing.assert_allclose(counts['depth'], valid.sum(), rtol=1e-6)
  np.testing.assert_allclose(
    losses.masked_squared_error(pyramid[3], stack.target, stack.valid)[0],
    np.sum(valid * (np.asarray(pyramid[3]) - target) ** 2),
    rtol=1e-5,
  )


def by_hand(error, name, scale):
  size = abs(error)
  if name == 'huber':
    return size**2 if size <= scale else scale * (2 * size - scale)
  return {'squared': size**2, 'absolute': size, 'charbonnier': 2 * scale * ((size**2 + scale**2) ** 0.5 - scale)}[name]


@pytest.mark.parametrize('name', PENALTIES)
def test_penalties_and_slopes_against_loops(name):
  settings = LossSettings(penalty=name, penalty_scale=0.3, gradient_weight=0.5, gradient_scales=3)
  pyramid, stack = random_maps(1)
  target, valid = np.asarray(stack.target, np.float64), np.asarray(stack.valid, np.float64)
  errors = [np.asarray(depth, np.float64) - target for depth in pyramid]
  depth = sum(
    weight * valid[place] * by_hand(error[place], name, 0.3)
    for weight, error in zip(settings.pyramid_weights, errors, strict=True)
    for place in np.ndindex(target.shape)
  )
  slopes = pairs = 0.0
  for b, y, x in np.ndindex(target.shape):
    for step in (1, 2, 4):
      for below, right in ((y + step, x), (y, x + step)):
        if below < target.shape[1] and right < target.shape[2]:
          weight = valid[b, y, x] * valid[b, below, right]
          slopes += weight * abs(errors[3][b, below, right] - errors[3][b, y, x])
          pairs += weight
  sums = depth_sums(pyramid, stack, settings)
  counts = depth_counts(stack, settings)
  np.testing.assert_allclose(sums['depth'], depth, rtol=1e-5)
  np.testing.assert_allclose(sums['gradient'], slopes, rtol=1e-5)
  np.testing.assert_allclose(counts['gradient'], pairs, rtol=1e-5)


def test_a_wrong_slope_by_hand():
  """A ramp too steep by 0.1 a pixel errs by 0.1, 0.2, 0.4 between pixels 1, 2, 4 apart along x, and by 0 along y."""
  ramp = jnp.broadcast_to(jnp.arange(8.0), (1, 6, 8))
  stack = stack_with(ramp, np.ones((1, 6, 8)))
  sums, counts = depth_sums([1.1 * ramp] * 4, stack, WITH_SLOPES), depth_counts(stack, WITH_SLOPES)
  np.testing.assert_allclose(sums['gradient'], 6 * (7 * 0.1 + 6 * 0.2 + 4 * 0.4), rtol=1e-5)
  assert counts['gradient'] == 6 * (7 + 6 + 4) + 8 * (5 + 4 + 2)


def test_a_constant_error_has_no_wrong_slope():
  pyramid, stack = random_maps()
  sums = depth_sums([*pyramid[:3], stack.target + 0.25], stack, WITH_SLOPES)
  np.testing.assert_allclose(sums['gradient'], 0, atol=1e-5)


def test_maps_smaller_than_a_scale_have_no_pairs_there():
  pyramid, stack = random_maps()
  few, many = (dataclasses.replace(WITH_SLOPES, gradient_scales=scales) for scales in (3, 6))
  assert depth_counts(stack, few) == depth_counts(stack, many)
  assert depth_sums(pyramid, stack, few) == depth_sums(pyramid, stack, many)


@pytest.mark.parametrize('scale', [0.01, 0.3])
@pytest.mark.parametrize('name', ['huber', 'charbonnier'])
def test_robust_penalties_are_squares_near_zero_and_straight_far_from_it(name, scale):
  slope = jax.jit(jax.grad(losses.penalty), static_argnums=(1, 2))
  small, large = 1e-3 * scale, 1e3 * scale
  np.testing.assert_allclose(penalty(jnp.float32(small), name, scale), small**2, rtol=1e-5)
  np.testing.assert_allclose(slope(small, name, scale), 2 * small, rtol=1e-5)
  for sign in (-1, 1):
    np.testing.assert_allclose(penalty(jnp.float32(sign * large), name, scale), 2 * scale * large, rtol=2e-3)
    np.testing.assert_allclose(slope(sign * large, name, scale), sign * 2 * scale, rtol=1e-5)


@pytest.mark.parametrize('name', PENALTIES)
def test_penalties_in_another_unit(name):
  """With the errors and the scale 7 times as large the penalty is 49 times as large, or 7 times without a square."""
  error = jnp.linspace(-1, 1, 41)
  factor = 7 if name == 'absolute' else 49
  scaled = penalty(7 * error, name, 7 * 0.2)
  np.testing.assert_allclose(scaled, factor * penalty(error, name, 0.2), rtol=1e-5)


def test_an_unknown_penalty():
  with pytest.raises(ValueError, match="penalty is 'cubic', expected one of squared"):
    losses.penalty(jnp.ones(3), 'cubic')


def test_sums_and_counts_add_up_over_the_parts_of_a_batch():
  pyramid, stack = random_maps(1)
  parts = [jax.tree.map(lambda x, b=b: x[b : b + 1], (pyramid, stack)) for b in range(2)]
  for got, expected in (
    ([depth_counts(s, WITH_SLOPES) for _, s in parts], depth_counts(stack, WITH_SLOPES)),
    ([depth_sums(p, s, WITH_SLOPES) for p, s in parts], depth_sums(pyramid, stack, WITH_SLOPES)),
  ):
    assert expected.keys() == {'depth', 'gradient'}
    for name, value in expected.items():
      np.testing.assert_allclose(sum(part[name] for part in got), value, rtol=1e-5)


def test_the_mean_is_weighted_by_confidence():
  """Half the confidence everywhere is the same loss; a pixel of confidence 1/4 counts a quarter of another."""
  pyramid, stack = random_maps()
  halved = stack.replace(valid=stack.valid / 2)
  expected = whole_loss(pyramid, stack, WITH_SLOPES)
  np.testing.assert_allclose(whole_loss(pyramid, halved, WITH_SLOPES), expected, rtol=1e-5)
  two = stack_with(np.zeros((1, 1, 2)), np.array([[[1.0, 0.25]]]))
  settings = LossSettings(pyramid_weights=(0.0, 0.0, 0.0, 1.0))
  np.testing.assert_allclose(whole_loss([jnp.array([[[1.0, 2.0]]])] * 4, two, settings), (1 + 0.25 * 4) / 1.25)


def test_the_pyramid_must_be_complete():
  pyramid, stack = random_maps()
  with pytest.raises(ValueError, match='zip'):
    depth_sums(pyramid[:3], stack, PUBLISHED)


@pytest.mark.parametrize('name', PENALTIES)
def test_unknown_pixels_have_neither_loss_nor_gradient(name):
  settings = dataclasses.replace(WITH_SLOPES, penalty=name)
  pyramid, stack = random_maps(2)
  anything = jnp.resize(jnp.array([9.0, jnp.nan, jnp.inf]), stack.target.shape)
  odd = stack.replace(target=jnp.where(stack.valid > 0, stack.target, anything))
  loss, slopes = value_and_grad(pyramid, odd, settings)
  expected_loss, expected_slopes = value_and_grad(pyramid, stack, settings)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
  for slope, expected in zip(slopes, expected_slopes, strict=True):
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(slope)[np.asarray(stack.valid) == 0], 0)
  squared, _ = losses.masked_squared_error(pyramid[3], odd.target, odd.valid)
  np.testing.assert_allclose(squared, losses.masked_squared_error(pyramid[3], stack.target, stack.valid)[0])


def test_gradient_of_the_published_loss():
  pyramid, stack = random_maps(2)
  slopes = jax.grad(lambda pyramid: depth_sums(pyramid, stack, PUBLISHED)['depth'])(pyramid)
  for weight, depth, slope in zip(PUBLISHED.pyramid_weights, pyramid, slopes, strict=True):
    np.testing.assert_allclose(slope, 2 * weight * stack.valid * (depth - stack.target), rtol=1e-5)


@pytest.mark.parametrize('name', PENALTIES)
def test_gradients_of_a_perfect_prediction(name):
  _, stack = random_maps()
  settings = dataclasses.replace(WITH_SLOPES, penalty=name)
  loss, slopes = value_and_grad([stack.target] * 4, stack, settings)
  assert loss == 0
  for slope in slopes:
    np.testing.assert_array_equal(slope, 0)


def test_balanced_stacks_count_by_their_own_error():
  """The slope of the loss is that of the mean logarithm of each stack's mean squared error."""
  pyramid, stack = random_maps()
  settings = LossSettings(pyramid_weights=(0.0, 0.0, 0.0, 1.0), balance=1e-3)

  def loss(depth):
    sums, counts = depth_sums((*pyramid[:3], depth), stack, settings), depth_counts(stack, settings)
    return sums['depth'] / counts['depth']

  def expected(depth):
    square = jnp.sum(stack.valid * (depth - stack.target) ** 2, (1, 2))
    count = jnp.sum(stack.valid, (1, 2))
    return jnp.sum(count * jnp.log(square / count + 1e-3)) / jnp.sum(count)

  slopes = jax.jit(lambda depth: (jax.grad(loss)(depth), jax.grad(expected)(depth)))(pyramid[-1])
  np.testing.assert_allclose(*slopes, rtol=1e-4, atol=1e-7)


def test_settings_come_from_the_config():
  config = default.get_config().loss
  assert set(config) == {field.name for field in dataclasses.fields(LossSettings)}
  assert losses.loss_settings(config) == LossSettings() == losses.loss_settings({})
  config.update(pyramid_weights=[0, 0, 0, 1], penalty='huber', penalty_scale=1, gradient_weight=2, gradient_scales=1)
  settings = losses.loss_settings(config)
  assert settings == LossSettings((0.0, 0.0, 0.0, 1.0), 'huber', 1.0, 2.0, 1)
  assert isinstance(hash(settings), int)  # static in jit


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'penalty': 'cubic'}, "loss.penalty is 'cubic', expected one of squared, absolute, huber, charbonnier"),
    ({'penalty_scale': 0.0}, 'loss.penalty_scale is 0.0, expected a number above 0'),
    ({'penalty_scale': float('nan')}, 'loss.penalty_scale is nan, expected a number above 0'),
    ({'gradient_weight': -0.5}, 'loss.gradient_weight is -0.5, expected a number of at least 0'),
    ({'motion_weight': float('inf')}, 'loss.motion_weight is inf, expected a number of at least 0'),
    ({'gradient_scales': 0}, 'loss.gradient_scales is 0, expected a whole number of at least 1'),
    ({'gradient_scales': 1.5}, 'loss.gradient_scales is 1.5, expected a whole number of at least 1'),
    ({'pyramid_weights': ()}, 'loss.pyramid_weights is (), expected numbers of at least 0, not'),
    ({'unit': 'metres'}, "loss.unit is 'metres', expected one of focus_range, given"),
    ({'balance': -1e-3}, 'loss.balance is -0.001, expected a number of at least 0'),
    ({'within_focus': 1}, 'loss.within_focus is 1, expected True or False'),
    ({'smoothness_weight': -1}, 'loss.smoothness_weight is -1, expected a number of at least 0'),
    ({'pyramid_weights': (0.0,) * 4, 'motion_weight': 0.0}, 'not all of them 0'),
    ({'pyramid_weights': (1.0, 1.0, 'a', 1.0)}, 'expected numbers'),
    ({'pyramid_weights': (1.0, 1.0, -1.0, 1.0)}, 'expected numbers'),
    ({'pyramid_weights': 1.0}, 'expected numbers'),
  ],
)
def test_bad_settings(changes, message):
  with pytest.raises(InputError) as error:
    losses.loss_settings(dict(default.get_config().loss) | changes)
  assert message in str(error.value)


@pytest.mark.parametrize('shape', [(8, 12), (9, 7)])
def test_motion_error_is_the_rms_of_the_displacement_error(shape):
  rng = np.random.default_rng(3)
  fov = jnp.asarray(rng.uniform(1, 1.1, (2, 3)), jnp.float32)
  estimate, truth = (jnp.asarray(rng.standard_normal((2, 3, 3)) * [0.05, 2, 2], jnp.float32) for _ in range(2))
  got = motion_error(estimate, truth, *shape)
  displacement_field = jax.jit(warp.displacement_field, static_argnums=(2, 3))
  fields = [np.asarray(displacement_field(fov, m, *shape), np.float64) for m in (estimate, truth)]
  for b, n in np.ndindex(2, 3):
    squares = [np.sum((fields[0] - fields[1])[b, n, y, x] ** 2) for y, x in np.ndindex(shape)]
    np.testing.assert_allclose(got[b, n], np.sqrt(np.mean(squares)), rtol=1e-4)


def test_motion_error_by_hand():
  """A shift by (3, 4) px is 5 px wrong everywhere; a zoom of 0.1 on 3 x 3 px displaces the border pixels by 0.1."""
  shift, zoom = jnp.array([[0.0, 3.0, 4.0]]), jnp.array([[0.1, 0.0, 0.0]])
  np.testing.assert_allclose(motion_error(shift, jnp.zeros((1, 3)), 32, 48), [5], rtol=1e-6)
  np.testing.assert_allclose(motion_error(jnp.zeros((1, 3)), zoom, 3, 3), [0.1 * np.sqrt(12 / 9)], rtol=1e-5)


def test_motion_error_has_a_gradient_where_it_is_zero():
  truth = jnp.array([[0.01, 1.0, -2.0]])
  value, slope = jax.jit(jax.value_and_grad(lambda m: losses.motion_error(m, truth, 32, 32).sum()))(truth)
  np.testing.assert_allclose(value, 0, atol=2e-6)
  np.testing.assert_array_equal(slope, 0)


def stack_of(focus, target):
  return FocalStack(
    images=jnp.zeros((2, 3, 4, 4, 3)),
    focus=jnp.asarray(focus, jnp.float32),
    fov=jnp.ones((2, 3)),
    target=target,
    valid=jnp.ones((2, 4, 4)),
  )


FOCUS = np.array([[0.5, 1.5, 2.5], [1.0, 4.0, 2.0]])  # in any order


def test_unit_focus_by_hand():
  target = jnp.stack([jnp.full((4, 4), 2.0), jnp.full((4, 4), 1.75)])
  mapped = unit_focus(stack_of(FOCUS, target))
  np.testing.assert_allclose(mapped.focus, [[0, 0.5, 1], [0, 1, 1 / 3]], rtol=1e-6)
  np.testing.assert_allclose(mapped.target[:, 0, 0], [0.75, 0.25], rtol=1e-6)
  np.testing.assert_array_equal(mapped.valid, 1)


def test_unit_focus_is_the_same_in_every_unit():
  target = jnp.asarray(np.random.default_rng(4).uniform(0.5, 4, (2, 4, 4)), jnp.float32)
  expected = unit_focus(stack_of(FOCUS, target))
  for factor, offset in ((0.02, 0.1), (1000.0, 0.0)):
    mapped = unit_focus(stack_of(FOCUS * factor + offset, target * factor + offset))
    np.testing.assert_allclose(mapped.focus, expected.focus, atol=1e-5)
    np.testing.assert_allclose(mapped.target, expected.target, atol=1e-5)


def test_unit_focus_without_target():
  assert unit_focus(stack_of(FOCUS, None)).target is None


def test_pixels_beyond_the_focus_do_not_count():
  stack = FocalStack(
    images=jnp.zeros((1, 2, 1, 4, 3)),
    focus=jnp.array([[3.0, 1.0]]),
    fov=jnp.ones((1, 2)),
    target=jnp.array([[[0.9, 1.0, 3.0, 3.1]]]),
    valid=jnp.array([[[1.0, 1.0, 0.5, 1.0]]]),
  )
  for unit in losses.UNITS:
    settings = LossSettings(unit=unit, within_focus=True)
    np.testing.assert_array_equal(training_stack(stack, settings).valid, [[[0.0, 1.0, 0.5, 0.0]]])
    free = training_stack(stack, LossSettings(unit=unit))
    np.testing.assert_array_equal(free.valid, stack.valid)
    expected = stack.target if unit == 'given' else (stack.target - 1) / 2
    np.testing.assert_allclose(free.target, expected)


def test_defocus_of_a_thin_lens():
  """The published formula, which is the thin lens's circle of confusion: f^2 / A |1/d - 1/s| s / (s - f)."""
  depth, focus = np.array([0.3, 1.0, 2.0]), np.array([0.2, 0.9])
  stack = FocalStack(
    images=jnp.zeros((1, 2, 1, 3, 3)),
    focus=jnp.asarray(focus, jnp.float32)[None],
    fov=jnp.ones((1, 2)),
    target=jnp.asarray(depth, jnp.float32)[None, None],
    valid=jnp.ones((1, 1, 3)),
  )
  f, d, s = 2.9e-3, depth[None, :], focus[:, None]
  diameter = f**2 * np.abs(1 / d - 1 / s) * s / (s - f)
  got = np.asarray(defocus_target(stack, 'given'))
  np.testing.assert_allclose(got[0, :, 0], np.minimum(diameter / 1e-4, 1), rtol=1e-4)
  assert 0 < got.min() < got.max() <= 1
  relative = np.asarray(defocus_target(stack, 'focus_range'))
  np.testing.assert_allclose(relative[0, :, 0], np.minimum(np.abs(d - s), 1), rtol=1e-6)


def test_smoothness_by_loops():
  rng = np.random.default_rng(0)
  depth, image = rng.random((3, 4)), rng.random((3, 4, 3)) * 0.01
  expected = 0.0
  for dy, dx in ((0, 1), (1, 0)):
    values = []
    for y in range(3 - dy):
      for x in range(4 - dx):
        g, e = image[y + dy, x + dx] - image[y, x], depth[y + dy, x + dx] - depth[y, x]
        values.append(np.exp(-np.mean((150 * g) ** 2)) * np.sqrt(e**2 + 1e-6))
    expected += np.mean(values) / 2
  got = smoothness(depth[None].astype(np.float32), image[None].astype(np.float32))
  np.testing.assert_allclose(got, [expected], rtol=1e-4)


def extras(frames=2, size=(2, 3)):
  """A prediction with all fields that a loss can use, and its stack."""
  rng = np.random.default_rng(4)

  def array(*shape):
    return jnp.asarray(rng.random(shape), jnp.float32)

  stack = FocalStack(
    images=array(1, frames, *size, 3),
    focus=jnp.linspace(0, 1, frames)[None],
    fov=jnp.ones((1, frames)),
    target=array(1, *size),
    valid=array(1, *size),
    all_in_focus=array(1, *size, 3),
  )
  prediction = Prediction(
    depth=(depth := array(1, *size)),
    confidence=depth,
    aligned=stack.images,
    coverage=array(1, frames, *size),
    motion=array(1, frames, 3),
    pyramid=(depth,),
    all_in_focus=array(1, *size, 3),
    defocus=array(1, frames, *size),
  )
  return prediction, stack


def test_all_parts_of_the_loss():
  prediction, stack = extras()
  settings = LossSettings(
    (2.0,), 'absolute', defocus_weight=0.5, all_in_focus_weight=3.0, smoothness_weight=0.25, motion_weight=0.0
  )
  sums, counts = (f(*args, settings) for f, args in (
    (prediction_sums, (prediction, stack)), (prediction_counts, (stack,))
  ))  # fmt: skip
  assert set(sums) == set(counts) == set(settings.weights)
  p, t = jax.tree.map(lambda x: np.asarray(x, np.float64), (prediction, stack))
  expected = {
    'depth': 2 * np.average(np.abs(p.depth - t.target), weights=t.valid),
    'defocus': np.mean(
      [np.average((p.defocus[:, n] - np.abs(t.target - t.focus[0, n])) ** 2, weights=t.valid) for n in range(2)]
    ),
    'all_in_focus': np.mean(np.abs(p.all_in_focus - t.all_in_focus)),
    'smoothness': float(smoothness(prediction.depth, stack.all_in_focus)[0]),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(sums[name] / counts[name], value, rtol=1e-5, err_msg=name)
  assert settings.weights == {'depth': 1.0, 'defocus': 0.5, 'all_in_focus': 3.0, 'smoothness': 0.25}


@pytest.mark.parametrize(
  ('weight', 'missing', 'message'),
  [
    ('defocus_weight', 'prediction.defocus', 'a model that predicts the defocus of frames'),
    ('all_in_focus_weight', 'prediction.all_in_focus', 'a model that predicts the all-in-focus image'),
    ('all_in_focus_weight', 'stack.all_in_focus', 'data with all-in-focus images'),
    ('smoothness_weight', 'stack.all_in_focus', 'data with all-in-focus images'),
  ],
)
def test_loss_parts_that_model_or_data_lack(weight, missing, message):
  prediction, stack = extras()
  what, _, field = missing.partition('.')
  if what == 'stack':
    stack = stack.replace(**{field: None})
  else:
    prediction = prediction.replace(**{field: None})
  settings = LossSettings((1.0,), **{weight: 1.0})
  with pytest.raises(InputError, match=rf'loss\.{weight} is 1\.0, expected 0, or {message}'):
    losses.check_parts(prediction, stack, settings)
  with pytest.raises(InputError, match=r'loss\.pyramid_weights is \(0\.3, .*, expected 1: one for each depth map'):
    losses.check_parts(prediction, stack, LossSettings())
