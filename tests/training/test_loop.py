"""Training on a small scale: what it writes, what it refuses, and what it starts from."""

import io
import itertools
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from absl import flags
from PIL import Image
from tensorboardX.proto import event_pb2

import focal_jax
from focal_jax.errors import InputError
from focal_jax.losses import LossSettings
from focal_jax.models.end_to_end import EndToEnd, init_variables
from focal_jax.models.npz_file import load_weights, save_weights
from focal_jax.recipes import ddff12, shipped, simulated
from focal_jax.simulate.stacks import settings_from_config, simulate_batch
from focal_jax.training import parallel
from focal_jax.training.data import TrainingData
from focal_jax.training.loop import data_names, train_and_evaluate
from focal_jax.training.parallel import Devices
from focal_jax.training.step import StepSettings, averaged_variables, init_state, make_train_step

flags.FLAGS.mark_as_parsed()  # grain reads absl flags


def run(workdir, **changes):
  config = simulated.get_config('smoke')
  config.update(changes)
  return train_and_evaluate(config, workdir)


@pytest.mark.slow  # the published network; what surrounds it is tested with a small one
def test_smoke_run_writes_what_it_says(tmp_path):
  finished = tmp_path / 'smoke'
  run(finished)
  lines = [json.loads(line) for line in (finished / 'metrics.jsonl').read_text().splitlines()]
  training = [line for line in lines if 'loss' in line]
  assert [line['step'] for line in training] == [2, 4, 6]
  for line in training:
    assert all(np.isfinite(value) for value in line.values())
    assert line['stacks_per_second'] > 0
    assert line['loss'] == pytest.approx(line['depth_loss'] + 0.05 * line['motion_px'], rel=1e-4)
  (validation,) = [line for line in lines if 'validation/mse' in line]
  assert 0 < validation['validation/mse'] < 1
  assert (finished / 'pictures' / 'validation_0000006.png').exists()
  assert json.loads((finished / 'config.json').read_text())['steps'] == 6
  out = focal_jax.load(finished / 'weights.npz').predict(np.zeros((2, 32, 32, 3), np.uint8), [0.0, 1.0])
  assert np.isfinite(out.depth).all()
  variables, description = load_weights(finished / 'weights.npz')
  assert description['steps'] == 6
  assert description['data'] == ['simulated']
  initial = init_variables(EndToEnd(), 0)
  assert not np.allclose(
    variables['params']['depth']['stem']['conv']['kernel'],
    initial['params']['depth']['stem']['conv']['kernel'],
    atol=1e-5,
  )


def test_runs_of_another_model_are_refused(tmp_path):
  config = toy.get_config(toy.write_stacks(tmp_path / 'data'))
  config.update(steps=1, validation_every=1)
  config.model.channels = 'RGB'
  workdir = train_and_evaluate(config, tmp_path / 'run').parent
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
  config.model.channels = 'BGR'
  with pytest.raises(InputError, match=r"config\.json: this run's model is .*'RGB'.*expected .*'BGR'"):
    train_and_evaluate(config, workdir)
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob('*')} == before


def test_runs_with_former_model_fields_are_refused(tmp_path):
  config = toy.get_config(toy.write_stacks(tmp_path / 'data'))
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text('{"model": {"name": "end_to_end", "depth": "curves"}}')
  with pytest.raises(InputError, match=r'config\.json: this run was begun when a model had other fields'):
    train_and_evaluate(config, tmp_path / 'run')


def test_folders_without_a_run_are_refused(tmp_path):
  (tmp_path / 'holiday.jpg').write_text('precious')
  with pytest.raises(InputError, match='not a folder of a run'):
    train_and_evaluate(toy.get_config(), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['holiday.jpg']


@pytest.mark.parametrize(
  ('section', 'changes', 'message'),
  [
    (None, {'networks': 'align'}, "networks is 'align', expected one of both, depth, alignment"),
    (None, {'compute_dtype': 'float16'}, "compute_dtype is 'float16', expected one of float32, bfloat16"),
    (None, {'precision': 'tf32'}, "precision is 'tf32', expected one of default, high, highest"),
    (None, {'parallel': 'pjit'}, "parallel is 'pjit', expected one of pmap, shard_map"),
    (
      None,
      {'batch_size': 6, 'accumulate': 4},
      'batch_size is 6, expected a multiple of .* accumulate, 4',
    ),
    ('optimizer', {'steps_per_update': 0}, r'optimizer\.steps_per_update is 0, expected at least 1'),
    (
      None,
      {'steps': 7, 'optimizer': {'steps_per_update': 3}},
      r'steps is 7, expected a multiple of optimizer\.steps_per_update, 3',
    ),
    (None, {'keep_checkpoints': 1}, 'keep_checkpoints is 1, expected at least 2'),
    (None, {'ema_decay': 1.0}, r'ema_decay is 1\.0, expected'),
    (None, {'best_metric': 'rms'}, "best_metric is 'rms', expected one of .*: mae, mse, motion_px, unmoved_px"),
    (None, {'networks': 'alignment'}, "best_metric is 'mse', expected one of .*: motion_px, unmoved_px"),
    (None, {'validation_stacks': 0}, 'validation_stacks is 0'),
    (
      None,
      {'networks': 'alignment', 'best_metric': 'motion_px', 'loss': {'motion_weight': 0.0}},
      r"loss\.motion_weight is 0\.0, expected more than 0 where networks is 'alignment'",
    ),
    (
      None,
      {'networks': 'depth', 'loss': {'pyramid_weights': (0.0,) * 4}},
      r"loss\.pyramid_weights is .*, expected one above 0, for no other part of the loss counts: networks is 'depth'",
    ),
    ('loss', {'penalty': 'cubic'}, "loss.penalty is 'cubic'"),
    ('data', {'simulated_frames': (3, 1)}, r'data\.simulated_frames is \(3, 1\), expected whole numbers of at least 2'),
    ('data', {'simulated_frames': (3,), 'source': 'ddff12'}, "data.simulated_frames is .* and data.source 'ddff12'"),
    ('data', {'rgbd_share': 1.5}, r'data\.rgbd_share is 1\.5, expected a number from 0 to 1'),
    ('data', {'rgbd': 'nyu_depth', 'source': 'ddff12'}, "data.rgbd is 'nyu_depth' and data.source 'ddff12', expected"),
    ('data', {'rgbd': 'folder:nowhere'}, 'nowhere: found no such folder'),
    ('data', {'raytraced_share': -0.5}, r'data\.raytraced_share is -0\.5, expected a number from 0 to 1'),
    ('data', {'raytraced': 'folder:nowhere'}, r'nowhere: found no \.npz files, expected scenes written by'),
    ('data', {'raytraced': 'nowhere'}, "data.raytraced is 'nowhere', expected folder:DIR"),
    ('data', {'raytraced': 'folder:x', 'source': 'ddff12'}, "data.raytraced is 'folder:x' and data.source 'ddff12'"),
    ('data', {'textures_share': -0.5}, r'data\.textures_share is -0\.5, expected a number from 0 to 1'),
    ('data', {'textures': 'nowhere'}, r"data\.textures is 'nowhere', expected folder:DIR"),
    ('data', {'textures': 'folder:nowhere'}, r'nowhere: found no such folder, expected .* \(data\.textures\)'),
    ('data', {'textures': 'folder:nowhere', 'source': 'ddff12'}, r"data\.textures is .* and data\.source 'ddff12'"),
    (None, {'validation_textures': 'folder:nowhere'}, r'nowhere: found no such folder, .*\(validation_textures\)'),
    ('model', {'depth': {'name': 'resnet'}}, r"model\.depth\.name is 'resnet'"),
    ('model', {'align': {'name': 'none'}}, r'model\.align\.passes is 1, expected no such field; none has none'),
    ('data', {'sorce': 'ddff12'}, r'no field data\.sorce; data has source'),
    ('model', {'channels': 'GBR'}, "model.channels is 'GBR'"),
    ('optimizer', {'schedule': 'step'}, "optimizer.schedule is 'step'"),
    ('simulator', {'num_frames': 1}, r'simulator\.num_frames is 1'),
    ('simulator', {'lens_sigma_px': (0.1, 0.0)}, r'simulator\.lens_sigma_px is \(0\.1, 0\.0\)'),
    ('simulator', {'height_px': 4}, 'simulator.height_px is 4'),
  ],
)
def test_bad_config_values(section, changes, message, tmp_path):
  config = simulated.get_config('smoke')
  (config[section] if section else config).update(changes)
  with pytest.raises(InputError, match=message):
    train_and_evaluate(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_unknown_data_set(tmp_path):
  config = ddff12.get_config('smoke')
  config.data.data_dir = str(tmp_path)
  with pytest.raises(InputError, match='ddff12'):
    train_and_evaluate(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.fixture
def two_folders(tmp_path):
  """Config of a mixture of two folders, of one stack each: frames of 40 x 48 px, four and five of them."""
  for name, frames in (('a', 4), ('b', 5)):
    stack = tmp_path / name / 'train' / 'stack'
    stack.mkdir(parents=True)
    for n in range(frames):
      Image.fromarray(np.full((40, 48, 3), 10 * n + (100 if name == 'b' else 0), np.uint8)).save(stack / f'{n}.png')
    np.save(stack / 'target.npy', np.ones((40, 48)))
  config = ddff12.get_config('smoke')
  config.data.source = f'folder:{tmp_path / "a"} + 3*folder:{tmp_path / "b"}'
  config.data.num_frames = (3, 3)
  config.batch_size = 4
  return config


def test_a_mixture_of_folders_becomes_batches_on_the_devices(two_folders):
  data = TrainingData(two_folders, Devices())
  inputs = data.inputs(0)
  index, first = next(inputs)
  np.testing.assert_array_equal(index, [[0, 1, 2, 3]])
  assert isinstance(first.images, jax.Array)
  assert first.images.dtype == jnp.uint8
  assert first.images.shape == (1, 4, 3, 32, 32, 3)
  assert first.motion is None
  brightness = np.concatenate([np.asarray(next(inputs)[1].images)[0, :, 0, 0, 0, 0] for _ in range(5)])
  assert np.sum(brightness >= 100) == 15  # of 20: three in four
  stack = jax.jit(data.make_batch)(jax.random.split(jax.random.key(0), 4), jax.tree.map(lambda x: x[0], first))
  assert stack.images.dtype == jnp.float32
  assert 0 <= stack.images.min() <= stack.images.max() <= 1


def test_the_motion_must_be_known_to_train_alignment_alone(two_folders, tmp_path):
  two_folders.networks = 'alignment'
  with pytest.raises(InputError, match="networks is 'alignment', but the motion is not known in all"):
    train_and_evaluate(two_folders, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_batches_of_simulated_stacks_of_several_numbers_of_frames():
  config = simulated.get_config('smoke')
  config.data.simulated_frames = (2, 5, 5)
  config.simulator.update(num_surfaces=1, height_px=8, width_px=8, margin_px=0)
  data = TrainingData(config, Devices())

  def counts(first, number):
    return [inputs[1].shape[-1] for _, inputs in itertools.islice(data.inputs(first), number)]

  drawn = counts(0, 60)
  assert set(drawn) == {2, 5}
  assert 28 <= drawn.count(5) <= 52  # of 60 at two thirds: 40, and three standard deviations
  assert counts(23, 9) == drawn[23:32]  # a run that goes on draws what it would have
  inputs = next(data.inputs(0))[1]
  stack = data.make_batch(jax.random.split(jax.random.key(0), 2), jax.tree.map(lambda x: x[0], inputs))
  assert stack.images.shape == (2, drawn[0], 8, 8, 3)


@pytest.fixture
def toy_validation(monkeypatch):
  """For validation on other stacks than the simulator's. On the simulator's, see `test_validation.py`."""
  monkeypatch.setattr('focal_jax.training.validation.simulate_batch', toy.simulate_batch)


@pytest.fixture
def toy_simulator(toy_validation, monkeypatch):
  """For training and validation on other stacks than the simulator's."""
  monkeypatch.setattr('focal_jax.training.data.simulate_batch', toy.simulate_batch)


@pytest.mark.usefixtures('toy_simulator')
def test_a_run_with_several_numbers_of_frames(tmp_path):
  config = toy.get_config()
  config.data.simulated_frames = (2, 3)
  config.steps = 12
  lines = (train_and_evaluate(config, tmp_path / 'run').parent / 'metrics.jsonl').read_text().splitlines()
  losses = [line['loss'] for line in map(json.loads, lines) if 'loss' in line]
  assert len(losses) == 12
  assert np.isfinite(losses).all()


@pytest.mark.usefixtures('toy_simulator')
def test_lines_of_metrics_are_means_of_the_steps_since_the_last_line(tmp_path):
  config = toy.get_config()
  config.update(steps=8, validation_every=8)

  def lines(every):
    config.log_every = every
    text = (train_and_evaluate(config, tmp_path / f'run_{every}').parent / 'metrics.jsonl').read_text()
    return {line['step']: line for line in map(json.loads, text.splitlines()) if 'loss' in line}

  each, some = lines(1), lines(3)
  assert sorted(some) == [3, 6, 8]
  for step, first in ((3, 1), (6, 4), (8, 7)):
    for name in ('loss', 'depth_loss', 'motion_px', 'gradient_norm'):
      mean = np.mean([each[s][name] for s in range(first, step + 1)])
      assert some[step][name] == pytest.approx(mean, rel=1e-6)
    assert some[step]['learning_rate'] == each[step]['learning_rate']


@pytest.fixture
def photographs(tmp_path):
  """Config of tiny stacks, four a step, half of them of one photograph: noise in grey, depth known but for a corner."""
  rng = np.random.default_rng(0)
  depth = np.linspace(1, 3, 50 * 60).reshape(50, 60)
  depth[:5, :5] = np.nan
  np.save(tmp_path / 'rgb.npy', np.broadcast_to(rng.integers(0, 256, (50, 60, 1), np.uint8), (50, 60, 3)))
  np.save(tmp_path / 'depth.npy', depth)
  config = simulated.get_config('smoke')
  # A sharp lens, or little would be left of the noise.
  config.simulator.update(num_surfaces=2, num_layers=2, lens_sigma_px=(0.2, 0.9))
  config.data.rgbd = f'folder:{tmp_path}'
  config.batch_size = 4
  return config


@pytest.mark.slow
def test_stacks_of_photographs_are_made_beside_procedural_ones(photographs):
  data = TrainingData(photographs, Devices())
  inputs = jax.tree.map(lambda x: x[0], next(data.inputs(0))[1])
  assert isinstance(inputs['rgbd']['rgb'], jax.Array)
  assert inputs['rgbd']['rgb'].shape == (4, 48, 48, 3)

  keys, made = jax.random.split(jax.random.key(1), 4), {}
  for share in (0.0, 0.5, 1.0):
    photographs.data.rgbd_share = share
    # A new function, because JAX may have cached the trace of the (equal) method for another share.
    made[share] = jax.device_get(jax.jit(lambda *given: data.make_batch(*given))(keys, inputs))
  procedural = jax.jit(simulate_batch, static_argnums=1)(keys, settings_from_config(photographs.simulator))
  # The same formulas may round differently when compiled with others.
  for a, b in zip(jax.tree.leaves(made[0.0]), jax.tree.leaves(procedural), strict=True):
    np.testing.assert_allclose(a, b, atol=1.01 / 255)

  every = made[1.0]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(every))
  np.testing.assert_array_equal(every.all_in_focus, every.all_in_focus[..., :1].repeat(3, axis=-1))  # grey
  assert np.ptp(every.all_in_focus, axis=(1, 2, 3)).min() > 0.3
  assert np.all(every.target >= every.focus[:, :1, None] - 1e-5)
  assert np.all(every.target <= every.focus[:, -1:, None] + 1e-5)
  assert np.all(every.valid.mean((1, 2)) > 0.5)
  assert len({x.tobytes() for x in every.all_in_focus}) == 4  # each has a crop of its own
  same = {tuple(bool(np.all(made[0.5].images[i] == made[share].images[i])) for share in (0.0, 1.0)) for i in range(4)}
  assert same == {(True, False), (False, True)}


def test_stacks_of_ray_traced_scenes_are_made_beside_procedural_ones(tmp_path):
  # Scenes whose depth tells them apart: all of it at 5, in the middle of their planes.
  light = np.random.default_rng(0).uniform(0, 1, (1, 6, 40, 40, 3)).astype(np.float16)
  focus = np.linspace(4, 6, 6, dtype=np.float32)[None]
  np.savez(tmp_path / 'scene.npz', light=light, focus=focus, inverse_depth=np.full((40, 40), 5.0, np.float32))
  config = toy.get_config()
  config.update(batch_size=8, networks='depth')
  config.data.update(raytraced=f'folder:{tmp_path}', raytraced_share=0.5)
  data = TrainingData(config, Devices())
  assert not data.motion_known
  assert not data.all_in_focus_known
  inputs = jax.tree.map(lambda x: x[0], next(data.inputs(0))[1])
  stack = jax.device_get(jax.jit(data.make_batch)(jax.random.split(jax.random.key(0), 8), inputs))
  assert stack.motion is None
  traced = np.all(stack.target == 5.0, axis=(1, 2))
  assert 0 < traced.sum() < 8
  assert np.all((stack.focus[traced] >= 4) & (stack.focus[traced] <= 6))
  assert np.all(stack.valid[traced] == 1)

  config.simulator.num_frames = 7
  with pytest.raises(InputError, match=r'simulator\.num_frames is 7, expected at most the 6 planes'):
    jax.eval_shape(TrainingData(config, Devices()).make_batch, jax.random.split(jax.random.key(0), 8), inputs)
  config.simulator.update(height_px=64, width_px=64)
  with pytest.raises(InputError, match="scene 'scene': is 40 x 40 px, expected at least the frames, 64 px"):
    TrainingData(config, Devices())


@pytest.fixture
def textured(tmp_path):
  """Config of the toy network on surfaces that all carry red noise; training and validation from one picture."""
  red = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8) * np.array([1, 0, 0], np.uint8)
  (tmp_path / 'pictures').mkdir()
  Image.fromarray(red).save(tmp_path / 'pictures' / 'red.png')
  config = toy.get_config()
  config.data.update(textures=f'folder:{tmp_path / "pictures"}', textures_share=1.0)
  config.validation_textures = config.data.textures
  config.simulator.scene.highlights = 0.0
  config.simulator.sensor.update(saturation=(1.0, 1.0), sharpened=0.0)
  config.update(steps=2, validation_every=2)
  return config


@pytest.mark.parametrize('kind', ['pmap', pytest.param('shard_map', marks=pytest.mark.slow)])
def test_textures_are_an_input_of_the_step(textured, kind):
  devices = Devices(kind)
  data, keys = TrainingData(textured, devices), jax.random.split(jax.random.key(0), 4)
  inputs = data.inputs(0)
  (_, first), (_, second) = next(inputs), next(inputs)
  assert first[1].tiles is second[1].tiles  # transferred once
  on_device = jax.tree.map(lambda x: x[0], first)
  make_batch = jax.jit(data.make_batch)
  constants = make_batch.trace(keys, on_device).jaxpr.consts
  # No picture within the program: a tile has 786,432. The simulator's own are there twice, for CPUs and for others.
  assert sum(np.asarray(x).nbytes for x in constants) < 400_000
  stack = make_batch(keys, on_device)
  red, green, blue = np.moveaxis(np.asarray(stack.all_in_focus), -1, 0)
  assert red.mean() > 0.2
  assert max(green.max(), blue.max()) <= 1 / 255
  # The same on a device that has a part of the batch.
  make_share = devices.run(lambda keys, share: (data.make_batch(keys, share[0]),), outputs=(True,))
  (shared,) = make_share(devices.replicate(keys[1:3]), (first,))
  np.testing.assert_allclose(shared.images[0], stack.images[1:3], atol=1.01 / 255)


def test_without_a_share_textures_change_nothing(textured):
  textured.data.textures_share = 0.0
  data, keys = TrainingData(textured, Devices()), jax.random.split(jax.random.key(0), 4)
  settings = settings_from_config(textured.simulator)
  made, procedural = (
    jax.make_jaxpr(function)(keys, jax.tree.map(lambda x: x[0], next(data.inputs(0))[1]))
    for function in (data.make_batch, lambda keys, inputs: simulate_batch(keys, settings))
  )
  assert str(made) == str(procedural)  # one program, for the same input


@pytest.mark.usefixtures('toy_validation')
def test_training_on_the_simulator_with_textures(textured, tmp_path):
  textured.data.simulated_frames = (3,)
  lines = (train_and_evaluate(textured, tmp_path / 'run').parent / 'metrics.jsonl').read_text().splitlines()
  losses = [line['loss'] for line in map(json.loads, lines) if 'loss' in line]
  assert len(losses) == 2
  assert np.isfinite(losses).all()


@pytest.mark.usefixtures('toy_simulator')
def test_textures_of_validation_are_not_those_of_training(textured, tmp_path):
  textured.data.simulated_frames = (3,)
  values = {}
  for name in ('folder', ''):
    textured.validation_textures = textured.data.textures if name else ''
    train_and_evaluate(textured, tmp_path / f'run_{name}')
    lines = map(json.loads, (tmp_path / f'run_{name}' / 'metrics.jsonl').read_text().splitlines())
    values[name] = [line.get('loss', line.get('validation/mse')) for line in lines]
  assert len(values['']) == 3
  assert np.isfinite(values['']).all()
  assert values[''][:2] == values['folder'][:2]  # the same training
  assert values[''][2] != values['folder'][2]


@pytest.mark.slow
def test_textures_beside_photographs_with_depth(photographs, textured):
  photographs.data.update(textures=textured.data.textures, textures_share=1.0, rgbd_share=0.0)
  photographs.simulator.scene.highlights = 0.0
  photographs.simulator.sensor.update(saturation=(1.0, 1.0), sharpened=0.0)
  data = TrainingData(photographs, Devices())
  inputs = jax.tree.map(lambda x: x[0], next(data.inputs(0))[1])
  stack = jax.jit(data.make_batch)(jax.random.split(jax.random.key(1), 4), inputs)
  assert stack.all_in_focus[..., 0].mean() > 0.2
  assert stack.all_in_focus[..., 1:].max() <= 1 / 255


def test_initial_weights_are_checked(tmp_path):
  variables = init_variables(toy.make_toy(), 0)
  del variables['params']['alignment']
  save_weights(tmp_path / 'depth_only.npz', variables, {})
  config = toy.get_config()
  config.init.alignment = str(tmp_path / 'depth_only.npz')
  with pytest.raises(InputError, match=r'depth_only\.npz: tensor params/alignment/.* is missing'):
    train_and_evaluate(config, tmp_path / 'run')


def test_each_network_starts_from_its_own_file(tmp_path):
  """No step: what comes out is what went in, depth from one file and alignment from another. The other network of a
  file does not matter.
  """
  config, expected = toy.get_config(toy.write_stacks(tmp_path / 'data')), {}
  config.steps = 0
  for seed, network, other in ((1, 'depth', 'alignment'), (2, 'alignment', 'depth')):
    variables = init_variables(toy.make_toy(), seed)
    expected[network] = variables['params'][network]
    variables['params'][other] = {'of_another_variant': np.zeros(3)}
    # What they were trained on is what the joined ones were, too; older files do not tell.
    description = {'data': ['ddff12/raw', 'simulated']} if network == 'depth' else {}
    save_weights(tmp_path / f'{network}.npz', variables, description)
    config.init[network] = str(tmp_path / f'{network}.npz')
  joined, description = load_weights(train_and_evaluate(config, tmp_path / 'run'))
  jax.tree.map(np.testing.assert_array_equal, joined['params'], expected)
  assert description['data'] == ['ddff12/raw', 'simulated']


@pytest.mark.usefixtures('toy_simulator')
def test_weights_tell_what_they_were_trained_on(tmp_path):
  """Names without proportions and without a user's folders; also of what a run was trained on before."""
  config = toy.get_config(toy.write_stacks(tmp_path / 'data'))
  config.steps = 3
  _, description = load_weights(train_and_evaluate(config, tmp_path / 'run'))
  assert description['data'] == ['folder']
  config.steps, config.data.source = 5, 'simulated'
  _, description = load_weights(train_and_evaluate(config, tmp_path / 'run'))
  assert description['data'] == ['folder', 'simulated']
  config.data.update(source='0.7*ddff12 + 0.3*simulated/pixel_6', rgbd='')
  assert data_names(config) == ['ddff12', 'simulated/pixel_6']
  config.data.update(source='simulated', rgbd='nyu_depth')
  assert data_names(config) == ['nyu_depth', 'simulated']
  config.data.update(rgbd='', raytraced='folder:scenes')
  assert data_names(config) == ['raytraced', 'simulated']


def test_variants_are_checked():
  with pytest.raises(ValueError, match="unknown variant 'smoky'"):
    simulated.get_config('smoky')


def test_simulator_settings_come_from_the_config():
  settings = settings_from_config(shipped.get_config('depth').simulator)
  assert settings.num_frames == 10
  assert settings.sweep.blur_px == (0.4, 16.0)
  assert 'ddff12' in settings.sweep.cameras
  assert shipped.get_config('alignment').simulator.sweep.aligned == 0.05
  assert isinstance(hash(settings), int)  # static in jit


def test_the_average_follows_the_weights_slowly():
  """Against the recursion by hand, warm-up included; statistics of the normalisation are averaged alike."""
  model, settings = toy.make_toy(parallel.AXIS), StepSettings('depth', LossSettings(), ema_decay=0.3)
  devices, tx = Devices(), optax.sgd(0.1)
  batch = toy.random_batch(np.random.default_rng(0))
  state = init_state(init_variables(model, 0), tx, settings, 0)
  step = devices.run(make_train_step(model, tx, lambda keys, stack: stack, settings), outputs=(False, False))
  share = devices.share(jax.tree.map(lambda x: x[None], (np.arange(8, dtype=np.int32), batch)))
  expected = {'params': state.params, 'batch_stats': state.batch_stats}
  for number in range(6):
    state, _ = step(state, share)
    decay = min(0.3, (1 + number) / (10 + number))
    new = {'params': state.params, 'batch_stats': state.batch_stats}
    expected = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, expected, new)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), averaged_variables(state), expected)


@pytest.mark.slow
def test_a_trace_is_written(tmp_path):
  config = toy.get_config(toy.write_stacks(tmp_path / 'data'))
  config.update(steps=4, validation_every=4)
  train_and_evaluate(config, tmp_path / 'run', profile=(2, 3))
  (trace,) = (tmp_path / 'run' / 'profile').rglob('*.xplane.pb')
  assert trace.stat().st_size > 1000


def test_tensorboard_has_scalars_and_pictures(tmp_path):
  """Read back: scalars of every step that is logged, and the picture that lies beside as PNG."""
  config = toy.get_config(toy.write_stacks(tmp_path / 'data'))
  config.update(steps=4, validation_every=2, validation_stacks=3)
  train_and_evaluate(config, tmp_path / 'run')
  events = [event for path in (tmp_path / 'run' / 'tensorboard').iterdir() for event in read_events(path)]
  scalars = {
    (value.tag, event.step) for event in events for value in event.summary.value if value.HasField('simple_value')
  }
  for name in (
    'loss',
    'depth_loss',
    'motion_px',
    'gradient_norm',
    'learning_rate',
    'step_seconds',
    'stacks_per_second',
  ):
    assert {step for tag, step in scalars if tag == f'train/{name}'} == {1, 2, 3, 4}
  assert {step for tag, step in scalars if tag == 'validation/mse'} == {2, 4}
  images = {event.step: value.image for event in events for value in event.summary.value if value.HasField('image')}
  assert images.keys() == {2, 4}
  shown = np.array(Image.open(io.BytesIO(images[4].encoded_image_string)).convert('RGB'))
  written = np.array(Image.open(tmp_path / 'run' / 'pictures' / 'validation_0000004.png'))
  np.testing.assert_array_equal(shown, written)
  assert shown.shape[1] == 7 * 3 * 36 + 6 * 4  # seven panels of three times the frames' width


def read_events(path):
  """TensorBoard's record format: length, checksum of it, data, checksum of that."""
  content = path.read_bytes()
  while content:
    (length,) = struct.unpack('<Q', content[:8])
    yield event_pb2.Event.FromString(content[12 : 12 + length])
    content = content[16 + length :]
