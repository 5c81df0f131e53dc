"""Validation against the same sums by hand, from the files."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import programs
import pytest
import toy
from absl import flags
from PIL import Image

from focal_jax import warp
from focal_jax.data import sources
from focal_jax.data.sources import open_source
from focal_jax.losses import LossSettings
from focal_jax.models.end_to_end import init_variables
from focal_jax.stack import FocalStack
from focal_jax.training.optimizer import make_optimizer
from focal_jax.training.parallel import AXIS, Devices
from focal_jax.training.step import StepSettings, init_state
from focal_jax.training.validation import Validation

flags.FLAGS.mark_as_parsed()  # grain reads absl flags


def state_of(config):
  tx = make_optimizer(config.optimizer)
  state = init_state(init_variables(toy.make_toy(), 1), tx, StepSettings('both', LossSettings(), ema_decay=0.5), 0)
  # Validation uses the averaged weights, not the current ones.
  return state.replace(params=jax.tree.map(lambda x: x + 1, state.params))


apply = jax.jit(toy.make_toy().apply)
displacement_field = jax.jit(warp.displacement_field, static_argnums=(2, 3))


def by_hand(variables, stacks):
  """Means over all valid pixels, and over all frames."""
  squares, errors, count, motions, unmoved = 0.0, 0.0, 0.0, [], []
  for stack in stacks:
    low, high = stack.focus.min(), stack.focus.max()
    unit = stack.replace(focus=(stack.focus - low) / (high - low))
    prediction = jax.device_get(apply(variables, jax.tree.map(lambda x: x[None], unit)))
    error = np.abs(prediction.depth[0].astype(np.float64) - (stack.target - low) / (high - low)) * stack.valid
    errors, squares, count = errors + error.sum(), squares + (error**2).sum(), count + stack.valid.sum()
    truth, estimate, none = (
      np.asarray(displacement_field(stack.fov, motion, *stack.images.shape[1:3]))
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


def panel(picture, row, column, rows):
  """One of the panels of stacks of 40 x 36 px, which are drawn three times as large, 4 px apart."""
  top = picture.shape[0] - (rows - row) * (120 + 4) + 4
  large = picture[top : top + 120, column * (108 + 4) :][:, :108]
  small = large[::3, ::3]
  np.testing.assert_array_equal(large, small.repeat(3, axis=0).repeat(3, axis=1))
  return small


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
  np.testing.assert_array_equal(panel(picture, row=0, column=0, rows=2), examples[0]['images'][-1])
  truth = panel(picture, row=1, column=4, rows=2)
  np.testing.assert_array_equal(truth[:20], np.full((20, 36, 3), 128))  # not known: grey
  assert np.ptp(truth[20:]) > 100


@pytest.mark.slow
def test_simulated_stacks_are_the_same_for_every_seed_of_the_run(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
  (tmp_path / 'textures').mkdir()
  Image.fromarray(pixels).save(tmp_path / 'textures' / '0.png')
  config = toy.get_config()
  config.update(validation_stacks=2, best_metric='mae', validation_textures=f'folder:{tmp_path / "textures"}')
  config.data.textures_share = 0.5
  state, results = state_of(config), []
  for seed in (0, 1):
    config.seed = seed
    results.append(Validation(config, toy.make_toy(AXIS), Devices(), tmp_path)(state, 0)[0])
  assert results[0] == results[1]
  assert results[0]['validation/unmoved_px'] > 0


def test_validation_stops_when_told(tmp_path):
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


def test_the_picture_is_0_at_the_farthest_frame_in_every_unit(tmp_path, monkeypatch):
  """The same scene with depth in frames, and in distances, which grow the other way."""
  config = toy.get_config('folder:x')
  config.validation_stacks = 1
  near = np.tile(np.linspace(0, 3, 36, dtype=np.float32), (40, 1))  # 0 at the farthest frame
  images = np.random.default_rng(0).integers(0, 256, (4, 40, 36, 3), np.uint8)
  common = {'images': images, 'fov': np.ones(4, np.float32), 'motion': np.zeros((4, 3), np.float32)}
  common |= {'valid': np.ones((40, 36), np.float32), 'name': 'x'}
  pictures = []
  for focus, target in ((np.arange(4), near), (4 - np.arange(4), 4 - near)):
    example = common | {'focus': focus.astype(np.float32), 'target': target.astype(np.float32)}
    monkeypatch.setattr(sources, 'open_source', lambda *_, example=example: [example])
    pictures.append(Validation(config, toy.make_toy(AXIS), Devices(), tmp_path)(state_of(config), 0)[1])
  truths = [panel(picture, row=0, column=4, rows=1) for picture in pictures]
  np.testing.assert_allclose(truths[0].astype(int), truths[1], atol=2)
  assert np.ptp(truths[0]) > 100


def test_stacks_of_several_sizes_on_several_devices(tmp_path):
  """Sums equal those of one device, which takes each stack by itself."""
  path = tmp_path / 'mixed.py'
  path.write_text(MIXED)
  config = toy.write_stacks(tmp_path / 'data')
  stack = tmp_path / 'data' / 'val' / '1'
  for frame in range(4):
    Image.fromarray(np.random.default_rng(frame).integers(0, 256, (32, 48, 3), np.uint8)).save(stack / f'{frame}.png')
  np.save(stack / 'target.npy', np.random.default_rng(5).uniform(0, 3, (32, 48)))
  environment = {
    'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': os.pathsep.join(map(str, (ROOT, ROOT / 'tests', Path(__file__).parent))),
  }
  done = programs.run(path, config, tmp_path, environment=environment)
  assert done.returncode == 0, done.stderr
  one, two = map(json.loads, done.stdout.splitlines())
  assert one == pytest.approx(two, rel=1e-5)


ROOT = Path(__file__).parents[2]
MIXED = """
import json, sys
import jax
from absl import flags
import toy
from test_validation import state_of
from focal_jax.training.parallel import AXIS, Devices
from focal_jax.training.validation import Validation
from pathlib import Path

flags.FLAGS.mark_as_parsed()
config = toy.get_config(sys.argv[1])
config.validation_stacks = 3
for count in (1, 2):
  devices = Devices('pmap', jax.devices()[:count])
  validation = Validation(config, toy.make_toy(AXIS), devices, Path(sys.argv[2]))
  print(json.dumps(validation(state_of(config), 0)[0]))
"""
