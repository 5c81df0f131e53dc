"""Recipes have the published values, and each trains on small files in the layout of its data set."""

import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from absl import flags
from layouts import write_ddff12, write_flyingthings_fs, write_fod500, write_hci4d, write_smartphone
from ml_collections import ConfigDict
from PIL import Image

import tfds_ddff
from focal_jax.files.shipped import shipped_folder
from focal_jax.losses import loss_settings, motion_error
from focal_jax.models.npz_file import load_weights
from focal_jax.models.registry import complete
from focal_jax.recipes import default, shipped, zoo
from focal_jax.simulate.focus_sweep import draw_sweep
from focal_jax.simulate.stacks import settings_from_config
from focal_jax.training.loop import train_and_evaluate
from tfds_ddff.build import build

flags.FLAGS.mark_as_parsed()  # grain reads absl flags

SIZE = (40, 48)  # of the small files' frames: one size, so that the recipes share what is compiled
SIZES = (SIZE,) * 3
COUNTS = {'train': 3, 'val': 2}


@dataclasses.dataclass(frozen=True)
class Recipe:
  dataset: str
  examples: int  # of the split train, as published
  crop_px: int
  networks: str
  validation: str  # split
  reported: tuple[str, str, bool]  # data set, split, and whether frames are to be aligned
  write: Callable[[Path], None]  # small files


RECIPES = {
  'ddff12': Recipe(
    'ddff12', 5269, 224, 'depth', 'val', ('ddff12', 'val', 'off'), lambda f: write_ddff12(f, COUNTS, SIZE)
  ),
  'fod500': Recipe('fod500', 400, 256, 'depth', 'test', ('fod500', 'test', 'off'), lambda f: write_fod500(f, SIZES)),
  'hci4d': Recipe('hci4d', 20, 256, 'depth', 'val', ('hci4d', 'val', 'off'), lambda f: write_hci4d(f, COUNTS, SIZE)),
  'flyingthings': Recipe(
    'flyingthings_fs',
    1000,
    256,
    'depth',
    'val',
    ('middlebury_fs', 'test', 'off'),
    lambda f: write_flyingthings_fs(f, SIZES),
  ),
  'smartphone': Recipe(
    'smartphone',
    355,
    224,
    'both',
    'test',
    ('smartphone', 'test', 'network'),
    lambda f: write_smartphone(f, sizes=SIZES),
  ),
}


def module_of(name):
  return importlib.import_module(f'configs.{name}')


def fields(config):
  """Names of all fields, with those of their sections; networks have their own."""
  for name, value in config.to_dict().items():
    section = isinstance(value, dict) and not (isinstance(value.get('name'), str))
    yield from (f'{name}.{field}' for field in fields(config[name])) if section else (name,)


@pytest.mark.parametrize('name', RECIPES)
def test_the_published_values(name):
  recipe, config = RECIPES[name], module_of(name).get_config()
  assert config.data.source == recipe.dataset
  assert (config.data.crop_px, config.networks) == (recipe.crop_px, recipe.networks)
  assert config.data.crop_px % 32 == 0
  assert config.data.augment
  assert config.data.num_frames == ()
  assert config.batch_size == 4
  assert config.steps * config.batch_size == 1000 * recipe.examples
  optimizer = config.optimizer
  assert (optimizer.b1, optimizer.b2, optimizer.schedule, optimizer.warmup_steps) == (0.9, 0.99, 'constant', 0)
  assert (config.loss.pyramid_weights, config.loss.penalty) == ((0.3, 0.5, 0.7, 1.0), 'squared')
  assert (config.loss.gradient_weight, optimizer.clip_norm, config.ema_decay) == (0, 0, 0)
  assert config.validation_split == recipe.validation
  assert (config.eval.dataset, config.eval.split, config.eval.align) == recipe.reported
  assert config.data.data_dir == 'data'


@pytest.mark.parametrize('name', RECIPES)
def test_the_data_sets_of_a_recipe_exist(name):
  config = module_of(name).get_config()
  for dataset in (config.data.source, config.eval.dataset):
    _, protocol = tfds_ddff.find(dataset)
    assert protocol.num_frames >= 2
    assert f'tfds_ddff.build --dataset={dataset} --manual_dir=DOWNLOADS --data_dir=data\n' in module_of(name).__doc__


@pytest.mark.parametrize('name', [*RECIPES, 'simulated'])
def test_the_text_of_a_recipe_has_its_commands(name):
  for variant in ('', ':smoke'):
    assert f'python -m focal_jax.main --config=configs/{name}.py{variant} --workdir=runs/' in module_of(name).__doc__


@pytest.mark.parametrize(
  ('name', 'variant'),
  [(name, variant) for name in (*RECIPES, 'simulated') for variant in ('', 'smoke')]
  + [('shipped', stage) for stage in shipped.STAGES]
  + [('zoo', network + joint) for network in zoo.VARIANTS for joint in ('', '_joint')],
)
def test_recipes_have_the_fields_of_the_default_and_values_that_make_sense(name, variant):
  config = module_of(name).get_config(variant)
  assert list(fields(config)) == list(fields(default.get_config()))
  assert loss_settings(config.loss).motion_weight == 0.05
  assert settings_from_config(config.simulator).num_frames == config.simulator.num_frames
  assert config.best_metric == ('motion_px' if config.networks == 'alignment' else 'mse')  # else a run refuses it


@pytest.mark.parametrize('name', [*RECIPES, 'simulated'])
def test_an_unknown_variant(name):
  with pytest.raises(ValueError, match=rf"unknown variant 'smoky' of configs/{name}\.py, expected 'smoke' or nothing"):
    module_of(name).get_config('smoky')


def test_an_unknown_stage():
  with pytest.raises(ValueError, match=r"unknown stage 'smoke' of configs/shipped\.py"):
    shipped.get_config('smoke')


def test_an_unknown_network_of_the_zoo():
  with pytest.raises(ValueError, match=r"unknown network 'curves' of configs/zoo\.py, expected one of won_jeon, "):
    zoo.get_config('curves')


ZOO_FILES = sorted({path.stem for path in shipped_folder('weights').glob('*.npz')} - {'simulated'})


@pytest.mark.parametrize('name', ZOO_FILES)
def test_the_recipe_of_the_zoo_is_that_of_the_weights(name):
  model = complete(zoo.get_config(name).model.to_dict())
  assert load_weights(shipped_folder('weights') / f'{name}.npz')[1]['model'] == model


def test_joint_training_of_the_zoo():
  """The same networks and loss, both networks trained, on sweeps that move."""
  alone, joint = zoo.get_config('won_jeon'), zoo.get_config('won_jeon_joint')
  assert joint.model == alone.model
  assert joint.loss == alone.loss
  assert (alone.networks, joint.networks) == ('depth', 'both')
  settings = settings_from_config(joint.simulator)
  draw = jax.vmap(lambda key: draw_sweep(key, 10, settings.whole_width_px, settings.sweep))
  sweeps = draw(jax.random.split(jax.random.key(0), 64))
  at_rest = jnp.stack([1 - sweeps.fov, *2 * [jnp.zeros_like(sweeps.fov)]], axis=-1)
  first_frames_px = motion_error(sweeps.motion, at_rest, 128, 128)[:, 0]
  assert np.median(first_frames_px) > 2
  assert np.mean(sweeps.fov[:, 0] == 1) == pytest.approx(0.2 + 0.6, abs=0.15)  # at rest, or without metadata


def test_every_recipe_is_tested():
  files = {path.stem for path in Path(default.__file__).parent.glob('*.py')}
  assert files - {'__init__'} == {*RECIPES, 'default', 'simulated', 'shipped', 'zoo'}


def smoke_run(name, workdir, steps, model=None, networks=None, **data):
  """Numbers of each step of a recipe's smoke variant, and of its validation."""
  config = module_of(name).get_config('smoke')
  config.data.update(data)
  config.networks = networks or config.networks
  config.optimizer.learning_rate = 1e-3  # to see something in a few steps
  config.model = model or config.model
  config.update(steps=steps, log_every=1, checkpoint_every=steps, validation_every=steps)
  weights = train_and_evaluate(config, workdir)
  assert weights == workdir / 'weights.npz'
  assert load_weights(weights)[1]['steps'] == steps
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  training = [line for line in lines if 'loss' in line]
  assert [line['step'] for line in training] == list(range(1, steps + 1))
  assert all(np.isfinite(value) for line in training for value in line.values())
  (validation,) = [line for line in lines if 'validation/mse' in line]
  return training, validation


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_a_smoke_run_on_small_files(name, tmp_path):
  recipe = RECIPES[name]
  recipe.write(tmp_path / 'files')
  build(recipe.dataset, tmp_path / 'files', tmp_path / 'data')
  # The network takes a minute to compile. The next test covers it; here a small one tests the rest of each recipe.
  small = ConfigDict(toy.MODEL)
  training, validation = smoke_run(name, tmp_path / 'run', 2, small, data_dir=str(tmp_path / 'data'))
  for line in training:
    assert line['loss'] == line['depth_loss']  # the motion is not known, or not estimated
  assert 0 < validation['validation/mse'] < 10


@pytest.mark.slow
def test_the_network_learns(tmp_path):
  """What is textured in the first frame is far, what is in the last is near: one stack, whatever way it is turned."""
  rng = np.random.default_rng(0)
  near = np.arange(32) >= 16
  for split in ('train', 'val'):
    folder = tmp_path / split / 'stack'
    folder.mkdir(parents=True)
    for frame, sharp in enumerate((~near, np.zeros(32, bool), near)):
      texture = rng.integers(0, 256, (32, 32, 3)) * sharp[:, None] + 128 * ~sharp[:, None]
      Image.fromarray(texture.astype(np.uint8)).save(folder / f'{frame}.png')
    np.save(folder / 'target.npy', np.broadcast_to(2.0 * near, (32, 32)).copy())
    np.save(folder / 'motion.npy', np.zeros((3, 3)))
  training, _ = smoke_run('ddff12', tmp_path / 'run', 16, networks='depth', source=f'folder:{tmp_path}')
  losses = [line['loss'] for line in training]
  assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
