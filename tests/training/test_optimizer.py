import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from focal_jax.config import to_config_dict
from focal_jax.errors import InputError
from focal_jax.training.optimizer import make_optimizer, make_schedule


def settings(**fields):
  config = to_config_dict().optimizer
  config.update(fields)
  return config


def by_optax(config, steps):
  """The same learning rate, as a constant of the program."""
  after = max(steps - config.warmup_steps, 1)
  rest = (
    optax.cosine_decay_schedule(config.learning_rate, after)
    if config.schedule == 'cosine'
    else optax.constant_schedule(config.learning_rate)
  )
  warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
  return optax.join_schedules([warmup, rest], [config.warmup_steps])


@pytest.mark.parametrize('name', ['constant', 'cosine'])
@pytest.mark.parametrize(('warmup', 'steps'), [(0, 7), (10, 110), (10, 10), (20, 10)])
def test_schedule(name, warmup, steps):
  config = settings(learning_rate=0.1, warmup_steps=warmup, schedule=name)
  at = np.arange(steps + 20)
  rates = jax.vmap(make_schedule(config, steps))(at)
  np.testing.assert_allclose(rates, jax.vmap(by_optax(config, steps))(at), rtol=1e-5, atol=1e-7)


def test_an_unknown_schedule():
  with pytest.raises(InputError, match=r"optimizer.schedule is 'linear', expected 'constant' or 'cosine'"):
    make_schedule(settings(schedule='linear'), 10)


def test_another_schedule_does_not_compile_again():
  config, params = settings(schedule='cosine'), jnp.ones(3)
  tx = make_optimizer(config)
  update = jax.jit(tx.update)
  for rate, warmup, steps in ((0.1, 2, 10), (0.3, 4, 20)):
    config.update(learning_rate=rate, warmup_steps=warmup)
    adam = optax.adam(by_optax(config, steps), config.b1, config.b2)
    state, expected = tx.init(params), adam.init(params)
    for gradient in np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32):
      updates, state = update(gradient, state, params, schedule=make_schedule(config, steps))
      wanted, expected = adam.update(gradient, expected, params)
      np.testing.assert_allclose(updates, wanted, rtol=1e-5, atol=1e-9)
  assert update._cache_size() == 1


def test_an_update_from_several_steps():
  """The mean of three gradients, clipped as one, at the learning rate of the first: as a batch three times as large."""
  config = settings(learning_rate=0.1, warmup_steps=0, schedule='cosine', clip_norm=1.0)
  schedule = make_schedule(config, 12)
  adam = optax.adam(lambda update: schedule(3 * update), config.b1, config.b2)
  large = optax.chain(optax.clip_by_global_norm(1.0), adam)
  config.steps_per_update = 3
  small = make_optimizer(config)
  update, update_large = jax.jit(small.update), jax.jit(large.update)
  gradients = np.random.default_rng(0).normal(0, 2, (4, 3, 5)).astype(np.float32)
  params = expected = jnp.zeros(5)
  state, expected_state = small.init(params), large.init(expected)
  for of_update in gradients:
    for index, gradient in enumerate(of_update):
      updates, state = update(gradient, state, params, schedule=schedule)
      assert np.any(np.asarray(updates) != 0) == (index == 2)
      params = optax.apply_updates(params, updates)
    updates, expected_state = update_large(of_update.mean(0), expected_state, expected)
    expected = optax.apply_updates(expected, updates)
    np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_clipping():
  """With b1 = 0 and b2 -> 1 a first step of Adam shows nothing of the norm, so the moments are looked at."""
  config = settings()
  for norm, expected in ((0.0, 5.0), (10.0, 5.0), (1.0, 1.0)):
    config.clip_norm = norm
    tx = make_optimizer(config)
    gradient = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
    _, state = tx.update(gradient, tx.init(gradient), schedule=make_schedule(config, 10))
    mu = optax.tree.get(state, 'mu')
    assert float(optax.tree.norm(mu)) == pytest.approx((1 - config.b1) * expected, rel=1e-5)
