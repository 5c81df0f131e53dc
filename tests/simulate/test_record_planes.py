"""Stacks from ray-traced scenes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax.errors import InputError
from focal_jax.simulate import raytraced
from focal_jax.simulate.cameras import SweepSettings
from focal_jax.simulate.sensor import IDEAL
from focal_jax.simulate.stacks import SimulatorSettings

STEADY = SimulatorSettings(
  num_frames=4, sensor=IDEAL, sweep=SweepSettings(exposure=(0.0, 0.0), white_balance=(0.0, 0.0)), ends_valid=True
)
PLANES = 9
FOCUS = np.linspace(0.5, 2.5, PLANES, dtype=np.float32)
LIGHT = np.random.default_rng(0).uniform(0.1, 1, (PLANES, 6, 5, 3)).astype(np.float16)
INVERSE_DEPTH = np.linspace(0, 3, 30, dtype=np.float32).reshape(6, 5)


@pytest.fixture(scope='module')
def record():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(raytraced, 'TINT', 0.0)
    made = {}

    def call(seed, settings):
      if settings not in made:
        scene = [jnp.asarray(x) for x in (LIGHT, FOCUS, INVERSE_DEPTH)]
        made[settings] = jax.jit(lambda key: raytraced.record_planes(key, *scene, settings))
      return made[settings](jax.random.key(seed))

    yield call


def test_frames_are_planes_in_order(record):
  firsts, lasts = set(), set()
  for seed in range(20):
    stack = record(seed, STEADY)
    chosen = [int(np.argmin(abs(FOCUS - focus))) for focus in stack.focus]
    np.testing.assert_allclose(stack.focus, FOCUS[chosen])
    assert chosen[-1] - chosen[0] >= 5  # six tenths of the planes
    steps = np.diff(chosen)
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1  # as even as whole planes allow
    expected = LIGHT[chosen].astype(np.float32) ** (1 / 2.2)
    orders = [np.abs(stack.images - expected[..., list(order)]).max() for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2))]
    orders += [np.abs(stack.images - expected[..., list(order)]).max() for order in ((1, 2, 0), (2, 0, 1), (2, 1, 0))]
    assert min(orders) < 0.51 / 255  # some order of the colours
    firsts.add(chosen[0])
    lasts.add(chosen[-1])
  assert len(firsts) > 2
  assert {PLANES - 1, PLANES - 2} <= lasts


def test_truth_within_and_beyond_the_frames(record):
  for settings, reach in ((STEADY, 0.0), (dataclasses.replace(STEADY, truth_beyond=0.25), 0.25)):
    stack = record(3, settings)
    first, last = float(stack.focus[0]), float(stack.focus[-1])
    beyond = reach * (last - first)
    np.testing.assert_allclose(stack.target, np.clip(INVERSE_DEPTH, first - beyond, last + beyond), rtol=1e-5)
    np.testing.assert_array_equal(stack.valid, INVERSE_DEPTH > 0)
  stack = record(3, dataclasses.replace(STEADY, ends_valid=False))
  np.testing.assert_array_equal(stack.valid, np.clip(INVERSE_DEPTH, first, last) == INVERSE_DEPTH)


def test_all_planes(record):
  np.testing.assert_array_equal(record(0, dataclasses.replace(STEADY, num_frames=PLANES)).focus, FOCUS)
  with pytest.raises(InputError, match=r'simulator\.num_frames is 10, expected at most the 9 planes'):
    record(0, dataclasses.replace(STEADY, num_frames=PLANES + 1))


def test_sensor_and_pattern_apply():
  settings = SimulatorSettings(num_frames=3, patterned=1.0, pattern=(0.05, 0.05))
  light = np.full((PLANES, 16, 16, 3), 0.4, np.float16)
  scene = [jnp.asarray(x) for x in (light, FOCUS, np.ones((16, 16), np.float32))]
  images = jax.jit(lambda key: raytraced.record_planes(key, *scene, settings).images)(jax.random.key(0))
  assert images.std(axis=(1, 2)).min() > 0.005  # of a plain scene
  np.testing.assert_allclose(images * 255, np.round(images * 255), atol=1e-3)
