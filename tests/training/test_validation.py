"""Validation against the same sums by hand, from the files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from absl import flags
from PIL import Image

from focal_jax import warp
from focal_jax.data.sources import open_source
from focal_jax.losses import LossSettings
from focal_jax.models.end_to_end import init_variables
from focal_jax.stack import FocalStack
from focal_jax.training.loop import make_optimizer, make_schedule
from focal_jax.training.parallel import AXIS, Devices
from focal_jax.training.step import StepSettings, init_state
from focal_jax.training.validation import Validation

flags.FLAGS.mark_as_parsed()  # grain reads absl flags


def state_of(config):
  tx = make_optimizer(config.optimizer, make_schedule(config.optimizer, 10))
  state = init_state(init_variables(toy.make_toy(), 1), tx, StepSettings('both', LossSettings(), ema_decay=0.5), 0)
  # What is validated is the average, not the weights of the moment.
  return state.replace(params=jax.tree.map(lambda x: x + 1, state.params))


def by_hand(variables, stacks):
  """Means over all valid pixels, and over all frames."""
  squares, errors, count, motions, unmoved = 0.0, 0.0, 0.0, [], []
  for stack in stacks:
    low, high = stack.focus.min(), stack.focus.max()
    unit = stack.replace(focus=(stack.focus - low) / (high - low))
    prediction = toy.make_toy().apply(variables, jax.tree.map(lambda x: jnp.asarray(x)[None], unit))
    error = np.abs(np.asarray(prediction.depth[0], np.float64) - (stack.target - low) / (high - low)) * stack.valid
    errors, squares, count = errors + error.sum(), squares + (error**2).sum(), count + stack.valid.sum()
    truth, estimate, none = (
      warp.displacement_field(jnp.asarray(stack.fov), jnp.asarray(motion), *stack.images.shape[1:3])
      for motion in (stack.motion, prediction.motion[0], np.zeros_like(stack.motion))
    )
    for moved, total in ((estimate, motions), (none, unmoved)):
      total.append(np.sqrt(np.mean(np.sum((moved - truth) ** 2, axis=-1), axis=(1, 2))))
  values = {
    'mae': errors / count,
    'mse': squares / count,
    'motion_px': np.mean(motions),
    'unmoved_px': np.mean(unmoved),
  }
  return {f'validation/{name}': pytest.approx(float(value), rel=1e-4) for name, value in values.items()}


def test_the_first_stacks_of_a_source(tmp_path):
  """Two of three; of one of them half the depth is not known."""
  config = toy.get_config(toy.write_stacks(tmp_path / 'data'))
  half = np.load(tmp_path / 'data' / 'val' / '1' / 'target.npy')
  half[:20] = np.nan
  np.save(tmp_path / 'data' / 'val' / '1' / 'target.npy', half)
  config.validation_stacks = 2
  validation = Validation(config, toy.make_toy(AXIS), Devices(), tmp_path)
  state = state_of(config)
  scalars, picture = validation(state, 7)

  examples = [open_source(config.data.source, 'val', '')[index] for index in range(2)]
  fields = ('focus', 'fov', 'target', 'valid', 'motion')
  stacks = [
    FocalStack(images=example['images'] / np.float32(255), **{name: example[name] for name in fields})
    for example in examples
  ]
  assert scalars == by_hand(state.ema, stacks)

  with Image.open(tmp_path / 'pictures' / 'validation_0000007.png') as image:
    np.testing.assert_array_equal(image, picture)
  nearest = picture[-84:-44, :36]  # of the first of the two stacks, 40 x 36 px each
  np.testing.assert_array_equal(nearest, examples[0]['images'][-1])
  truth = picture[-40:, 4 * 40 : 4 * 40 + 36]
  np.testing.assert_array_equal(truth[:20], np.full((20, 36, 3), 128))  # not known: grey
  assert np.ptp(truth[20:]) > 100


def test_simulated_stacks_are_the_same_for_every_seed_of_the_run(tmp_path):
  config = toy.get_config()
  config.update(validation_stacks=2, best_metric='mae')
  state, results = state_of(config), []
  for seed in (0, 1):
    config.seed = seed
    results.append(Validation(config, toy.make_toy(AXIS), Devices(), tmp_path)(state, 0)[0])
  assert results[0] == results[1]
  assert results[0]['validation/unmoved_px'] > 0


def test_told_to_stop(tmp_path):
  config = toy.get_config(toy.write_stacks(tmp_path / 'data'))
  validation = Validation(config, toy.make_toy(AXIS), Devices(), tmp_path)
  assert validation(state_of(config), 7, lambda: True) is None
  assert not (tmp_path / 'pictures').exists()


def test_large_frames_are_drawn_small(tmp_path):
  """600 px wide: every third pixel."""
  root = tmp_path / 'data'
  config = toy.get_config(toy.write_stacks(root))
  for frame in range(4):
    Image.fromarray(np.zeros((32, 600, 3), np.uint8)).save(root / 'val' / '0' / f'{frame}.png')
  np.save(root / 'val' / '0' / 'target.npy', np.ones((32, 600)))
  config.validation_stacks = 1
  _, picture = Validation(config, toy.make_toy(AXIS), Devices(), tmp_path)(state_of(config), 0)
  assert picture.shape[1] == 7 * 200 + 6 * 4
