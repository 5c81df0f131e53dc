"""The other networks: their recipes, training, and each behind this project's alignment."""

import importlib
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from absl import flags
from layouts import write_hci4d

from configs import zoo
from configs.ablations import networks
from configs.baselines import aifdepthnet, defocusnet, dfv
from focal_jax import api, losses, warp
from focal_jax.errors import InputError
from focal_jax.losses import loss_settings
from focal_jax.models import registry
from focal_jax.models.end_to_end import init_variables, variable_shapes
from focal_jax.models.registry import make_model
from focal_jax.stack import FocalStack
from focal_jax.sweeps.variants import declared_variants, override
from focal_jax.training.loop import model_of, train_and_evaluate
from tfds_ddff.build import build

flags.FLAGS.mark_as_parsed()  # grain reads absl flags

RECIPES = [
  (defocusnet, ''),
  *((aifdepthnet, variant) for variant in ('', 'unsupervised', 'unsupervised_hci4d')),
  *((dfv, variant) for variant in ('', 'volume')),
]


def small_stack(frames=3, side=32, fov=1.0):
  rng = np.random.default_rng(0)
  return FocalStack(
    images=jnp.asarray(rng.random((1, frames, side, side, 3)), jnp.float32),
    focus=jnp.linspace(1, 0.2, frames)[None],
    fov=jnp.linspace(fov, 1, frames)[None],
    target=jnp.asarray(rng.uniform(0.2, 1, (1, side, side)), jnp.float32),
    valid=jnp.ones((1, side, side)),
    all_in_focus=jnp.asarray(rng.random((1, side, side, 3)), jnp.float32),
  )


def parts_of_the_loss(config):
  """Computed in shapes only; an error if the model lacks one of them."""
  settings, model, stack = loss_settings(config.loss), model_of(config), small_stack()

  def check(variables):
    prediction = model.apply(variables, stack, align=False)
    losses.check_parts(prediction, stack, settings)
    return losses.prediction_sums(prediction, stack, settings)

  return set(jax.eval_shape(check, variable_shapes(model)))


@pytest.mark.parametrize(('module', 'variant'), RECIPES)
def test_a_recipe_and_its_model_go_together(module, variant):
  config = module.get_config(variant)
  name = module.__name__.removeprefix('configs.baselines.')
  assert config.model.depth.name == name
  assert parts_of_the_loss(config) == set(loss_settings(config.loss).weights)
  # Adam as published; one depth map's weight times the penalty is the authors' loss.
  assert (config.optimizer.learning_rate, config.optimizer.b1, config.optimizer.b2) == (1e-4, 0.9, 0.999)
  text = f'python -m focal_jax.main --config=configs/baselines/{name}.py{f":{variant}" if variant else ""} --workdir='
  assert text in module.__doc__


@pytest.mark.parametrize('name', zoo.VARIANTS)
def test_the_zoo_trains_the_weights_that_load_by_that_name(name):
  config = zoo.get_config(name)
  assert config.model.depth.to_dict() == api.load(name).description['model']['depth']
  parts = parts_of_the_loss(config)
  assert parts >= {'depth'}
  unsupervised = name.endswith('_unsupervised')
  assert (parts == {'depth', 'all_in_focus', 'smoothness'}) == unsupervised
  assert any(config.loss.pyramid_weights) != unsupervised


def test_published_losses():
  error = np.array([0.3, -0.1, 2.5])
  config = dfv.get_config()
  settings = loss_settings(config.loss)
  smooth = np.where(np.abs(error) < 1, error**2 / 2, np.abs(error) - 0.5)
  got = losses.penalty(jnp.asarray(error, jnp.float32), settings.penalty, settings.penalty_scale)
  for weight, published in zip(settings.pyramid_weights, (1, 2, 4, 8), strict=True):
    np.testing.assert_allclose(weight * got, published / 15 * smooth, rtol=1e-5)
  assert (config.optimizer.clip_norm, config.batch_size, config.data.num_frames) == (0.5, 20, (5, 5))
  settings = loss_settings(defocusnet.get_config().loss)
  metres = np.array([0.6])
  got = settings.pyramid_weights[0] * losses.penalty(jnp.asarray(metres), settings.penalty)
  np.testing.assert_allclose(got, (metres / 3) ** 2, rtol=1e-5)  # depth in units of 3 m


@pytest.mark.parametrize('module', [defocusnet, aifdepthnet, dfv])
def test_an_unknown_variant(module):
  with pytest.raises(ValueError, match="unknown variant 'huge' of configs/baselines/"):
    module.get_config('huge')
  assert module.get_config('smoke').steps < 10


def test_the_sweep_of_all_networks():
  config = networks.get_config('smoke')
  variants = declared_variants(config, networks.sweep)
  assert len(variants) == 5 * len(networks.NETWORKS)
  for variant in variants:
    changed = networks.get_config('smoke')
    for field, value in variant.overrides.items():
      override(changed, field, str(value) if field.startswith('init.') else value)
    model_of(changed)
    assert re.fullmatch(r'[A-Za-z0-9._+=,~-]+', variant.name)
  with pytest.raises(ValueError, match="unknown variant 'big'"):
    networks.get_config('big')


def test_losses_that_the_model_lacks_are_refused_before_anything_is_written(tmp_path):
  config = toy.get_config(toy.write_stacks(tmp_path / 'stacks'))
  config.loss.defocus_weight = 1.0
  with pytest.raises(InputError, match=r'loss\.defocus_weight is 1\.0, expected 0, or a model that predicts'):
    train_and_evaluate(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_aifdepthnet_learns_from_the_central_views_of_a_data_set(tmp_path):
  write_hci4d(tmp_path / 'downloads', {'train': 3, 'val': 2}, (40, 48))
  build('hci4d', tmp_path / 'downloads', tmp_path / 'data')
  config = aifdepthnet.get_config('unsupervised_hci4d')
  config.model.depth.channel_divisor = 8
  config.data.update(data_dir=str(tmp_path / 'data'), crop_px=32, num_frames=(3, 3))
  config.update(batch_size=2, steps=2, validation_every=2, checkpoint_every=2, validation_stacks=2, log_every=1)
  train_and_evaluate(config, tmp_path / 'run')
  lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  trained = [line for line in lines if 'loss' in line]
  assert len(trained) == 2
  for line in trained:
    assert line['all_in_focus_loss'] > 0
    # Depth is only looked at: the loss is that of the image and of smoothness.
    assert line['loss'] == pytest.approx(line['all_in_focus_loss'] + 0.1 * line['smoothness_loss'], rel=1e-5)


def test_a_loss_of_the_all_in_focus_image_is_refused_where_the_data_have_none(tmp_path):
  config = toy.get_config(toy.write_stacks(tmp_path / 'stacks'))
  config.loss.smoothness_weight = 1.0
  with pytest.raises(
    InputError, match=r'loss\.smoothness_weight is 1\.0, expected 0, or data with all-in-focus images'
  ):
    train_and_evaluate(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_defocusnet_trains_in_its_own_unit_and_predicts(tmp_path):
  config = toy.get_config(toy.write_stacks(tmp_path / 'stacks'))
  config.model = defocusnet.get_config().model
  config.model.depth.channel_divisor = 8
  config.loss = defocusnet.get_config().loss
  config.networks = 'depth'
  config.update(batch_size=2, steps=3, validation_every=3, checkpoint_every=3)
  weights = train_and_evaluate(config, tmp_path / 'run')
  model = api.load(weights)
  assert model.description['model']['depth'] == {'name': 'defocusnet', 'unit': 'metres', 'channel_divisor': 8}
  stack = small_stack()
  out = model.predict(np.asarray(stack.images[0]), stack.focus[0], align='off')
  assert out.weights is None
  assert out.defocus.shape == (3, 32, 32)
  np.testing.assert_array_equal(out.confidence, 0)
  assert np.isfinite(out.depth).all()


@pytest.mark.parametrize(
  'depth', [{'name': 'defocusnet', 'channel_divisor': 8}, {'name': 'dfv', 'channel_divisor': 8, 'level': 1}]
)
def test_behind_an_alignment_a_network_sees_what_it_warps(depth):
  alone, behind, learning = (
    make_model({'padding': 'black', 'depth': depth, 'align': {'name': name}})
    for name in ('none', 'metadata', 'learned')
  )
  variables = init_variables(alone, 0)
  stack = small_stack(fov=1.1)
  out = jax.jit(behind.apply)(variables, stack)
  warped = jax.jit(warp.warp)(2 * stack.images - 1, stack.fov) / 2 + 0.5
  expected = jax.jit(lambda v, s: alone.apply(v, s, align=False))(variables, stack.replace(images=warped))
  np.testing.assert_allclose(out.depth, expected.depth, atol=1e-4)
  learned = variable_shapes(learning)['params']
  assert set(learned) == {'alignment', 'depth'}
  assert learned['depth'] == variable_shapes(alone)['params']['depth']


@pytest.mark.parametrize('length', [20, 32, 33])
def test_reflected_padding(length):
  model = make_model({'padding': 'reflect'})
  images = jnp.asarray(np.random.default_rng(0).random((1, 2, length, 32, 3)), jnp.float32)
  got = model.apply({}, images, (length, 32), method='_pad')
  expected = np.pad(images, ((0, 0), (0, 0), (0, -length % 32), (0, 0), (0, 0)), 'reflect')
  np.testing.assert_array_equal(got, expected)


def test_the_example_of_the_documentation(tmp_path, monkeypatch):
  text = (Path(__file__).parents[1] / 'docs' / 'tutorials' / 'own_network.md').read_text()
  code = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert len(code) == 3
  monkeypatch.setitem(registry.DEPTH, 'sharpest', None)  # is taken out again
  for number, block in enumerate(code):
    (tmp_path / f'block{number}.py').write_text(block)
  monkeypatch.syspath_prepend(tmp_path)
  network = importlib.import_module('block0')
  monkeypatch.setitem(sys.modules, 'focal_jax.models.sharpest', network)
  exec(code[1], {'DEPTH': registry.DEPTH})  # the documentation's own lines

  config = toy.get_config(toy.write_stacks(tmp_path / 'stacks'))
  recipe = importlib.import_module('block2').get_config()
  config.model = recipe.model
  config.update(loss=recipe.loss, networks=recipe.networks)
  config.update(batch_size=2, steps=3, validation_every=3, checkpoint_every=3)
  model = api.load(train_and_evaluate(config, tmp_path / 'run'))
  stack = small_stack()
  out = model.predict(np.asarray(stack.images[0]), stack.focus[0], align='off')
  np.testing.assert_allclose(out.depth, np.einsum('nhw,n->hw', out.weights, stack.focus[0]), atol=1e-5)
  with pytest.raises(InputError, match=r'model\.depth\.filters is 4, expected one of 3, 6'):
    make_model({'depth': {'name': 'sharpest', 'filters': 4}})
