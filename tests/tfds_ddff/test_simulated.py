"""Simulated stacks, frozen: bit by bit what the simulator makes, whole or in parts, and nothing left by a failure."""

import functools
import itertools
import json
import signal
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
from ml_collections import ConfigDict

import tfds_ddff.build
from focal_jax.data.sources import open_source
from focal_jax.errors import InputError
from focal_jax.simulate.cameras import SweepSettings
from focal_jax.simulate.sensor import SensorSettings
from focal_jax.simulate.stacks import SimulatorSettings, simulate
from focal_jax.stack import FocalStack
from tfds_ddff import built_folder, load
from tfds_ddff.build import build, build_simulated
from tfds_ddff.simulated import simulated_dataset_builder as builder

ROOT = Path(__file__).parents[2]
SETTINGS = SimulatorSettings(
  num_frames=3,
  height_px=32,
  width_px=40,
  margin_px=8,
  num_surfaces=1,
  sensor=SensorSettings(jpeg_quality=None),  # which takes half of the compilation
)
MIXED = SimulatorSettings(
  sweep=SweepSettings(cameras=('dslr', 'defocusnet'), far_dpt=None, range_dpt=None, blur_px=None)
)


@pytest.fixture
def noise_only(monkeypatch):
  """Takes the place of the simulator, which is slow to compile: stacks of random numbers, functions of keys as well."""

  def noise(key, settings):
    keys = iter(jax.random.split(key, 7))
    n, h, w = settings.num_frames, settings.height_px, settings.width_px
    images, all_in_focus = (jnp.round(jax.random.uniform(next(keys), s) * 255) / 255 for s in ((n, h, w, 3), (h, w, 3)))
    focus, fov, motion, target, valid = (
      jax.random.uniform(next(keys), shape) for shape in ((n,), (n,), (n, 3), (h, w), (h, w))
    )
    return FocalStack(images, focus, fov, target, jnp.round(valid), motion, all_in_focus)

  monkeypatch.setattr(builder, 'simulate', noise)


def files(folder: Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in built_folder('simulated', folder).iterdir()}


@pytest.mark.slow
def test_examples_are_what_the_simulator_makes_bit_by_bit(tmp_path):
  counts = {'train': 2, 'val': 1}
  assert build_simulated(SETTINGS, counts, tmp_path, seed=7) == (tmp_path, counts)
  render = jax.jit(functools.partial(simulate, settings=SETTINGS))
  for number, (split, count) in enumerate(counts.items()):
    source = open_source('simulated/frozen', split, str(tmp_path))
    assert len(source) == count
    assert source.focus_unit == '1/m'
    for index, example in enumerate(source):
      key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), number), index)
      stack = jax.device_get(render(key))
      assert example['name'] == f'{split}_{index:05}'.encode()
      for name in ('images', 'all_in_focus'):
        expected = np.round(getattr(stack, name) * 255).astype(np.uint8)
        np.testing.assert_array_equal(example[name], expected, strict=True)
      for name in ('focus', 'fov', 'motion', 'valid'):
        np.testing.assert_array_equal(example[name], getattr(stack, name), strict=True)
      np.testing.assert_array_equal(example['target'], stack.target * stack.valid, strict=True)
  assert tfds_ddff.build.draw_contact_sheet('simulated', tmp_path).is_file()


def test_the_data_set_says_what_it_holds(noise_only, tmp_path):
  settings = SimulatorSettings(num_frames=4, height_px=8, width_px=8, sweep=SweepSettings(cameras=('ddff12',)))
  build_simulated(settings, {'train': 2, 'val': 0}, tmp_path, seed=3)
  source = load('simulated', 'train', tmp_path)
  assert source.focus_unit == 'px'
  assert source[0]['images'].shape == (4, 8, 8, 3)
  metadata = json.loads(files(tmp_path)['metadata.json'])
  assert (metadata['seed'], metadata['examples']) == (3, {'train': 2, 'val': 0})
  assert metadata['simulator']['sweep']['cameras'] == ['ddff12']
  with pytest.raises(InputError, match="no split 'val', expected train"):
    load('simulated', 'val', tmp_path)


def test_parts_joined_are_one_build(noise_only, tmp_path):
  counts = {'train': 5, 'val': 2}  # of three parts, one has no val
  build_simulated(SETTINGS, counts, tmp_path / 'one')
  make = functools.partial(build_simulated, SETTINGS, counts, tmp_path / 'many', process_count=3)
  numbers = []
  for index in (2, 0):
    folder, built = make(process_index=index)
    assert folder == tmp_path / 'many' / f'part-{index}-of-3'
    numbers.append(built)
  with pytest.raises(InputError, match=r'part-1-of-3.*found no part.*--process_index=1'):
    make()
  numbers.append(make(process_index=1)[1])
  assert [sum(built.get(split, 0) for built in numbers) for split in counts] == [5, 2]
  with pytest.raises(InputError, match=r'part-0-of-3.*another config, seed or number of examples'):
    make(seed=1)
  assert make() == (tmp_path / 'many', counts)
  assert files(tmp_path / 'many') == files(tmp_path / 'one')
  assert [path.name for path in (tmp_path / 'many').iterdir()] == ['simulated']


def test_a_process_that_is_interrupted_leaves_the_work_of_others(noise_only, tmp_path):
  make = functools.partial(build_simulated, SETTINGS, {'train': 4, 'val': 0}, tmp_path, process_count=2)
  make(process_index=0)
  before = files(tmp_path / 'part-0-of-2')
  asked = itertools.count(1)
  with pytest.raises(KeyboardInterrupt):
    make(process_index=1, should_stop=lambda: next(asked) == 2)
  assert [path.name for path in tmp_path.iterdir()] == ['part-0-of-2']
  with pytest.raises(InputError, match='found a built data set, expected none; pass --overwrite'):
    make(process_index=0)
  make(process_index=1)
  with pytest.raises(KeyboardInterrupt):  # joining, too, leaves the parts
    make(should_stop=lambda: True)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['part-0-of-2', 'part-1-of-2']
  assert files(tmp_path / 'part-0-of-2') == before


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'counts': {'train': 0, 'val': 1}}, '--num_train is 0, expected at least 1'),
    ({'counts': {'train': 2, 'val': -1}}, '--num_val is -1, expected at least 0'),
    ({'process_count': 3}, '--process_count is 3, expected 1 to 2'),
    ({'process_count': 2, 'process_index': 2}, '--process_index is 2, expected 0 to 1'),
    ({'settings': MIXED}, 'simulator.sweep.cameras have the units 1/m, m, expected cameras of one unit'),
  ],
)
def test_errors_leave_nothing(arguments, message, tmp_path):
  arguments = {'settings': SETTINGS, 'counts': {'train': 2, 'val': 0}, 'data_dir': tmp_path / 'data', **arguments}
  with pytest.raises(InputError, match=message):
    build_simulated(**arguments)
  assert not (tmp_path / 'data').exists()


def test_which_data_set_needs_what(tmp_path):
  with pytest.raises(InputError, match='ddff12 needs --manual_dir'):
    build('ddff12', None, tmp_path / 'data')
  with pytest.raises(InputError, match="'simulated' is not made from files, expected --config"):
    build('simulated', tmp_path, tmp_path / 'data')
  assert not (tmp_path / 'data').exists()


@pytest.fixture
def command(tmp_path, monkeypatch):
  """Runs `main` with these flags; the handlers of signals are then as they were."""
  handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  defaults = {'num_train': 1, 'num_val': 1, 'seed': 0, 'process_index': None, 'process_count': 1, 'overwrite': False}

  def run(**values):
    options = types.SimpleNamespace(dataset='simulated', data_dir=tmp_path / 'data', **{**defaults, **values})
    monkeypatch.setattr(tfds_ddff.build.flags, 'FLAGS', options)
    return tfds_ddff.build.main(['build'])

  yield run
  for number, handler in handlers.items():
    signal.signal(number, handler)


def test_the_command(noise_only, command, tmp_path, capsys):
  config = ConfigDict({'simulator': {'num_frames': 2, 'height_px': 8, 'width_px': 8}})
  assert command(config=None) == 2
  assert 'simulated needs --config, for example configs/simulated.py\n' in capsys.readouterr().err
  assert command(config=ConfigDict({'simulator': {'frames': 2}})) == 2
  assert "'frames'" in capsys.readouterr().err
  assert not (tmp_path / 'data').exists()
  assert command(config=config, num_train=2, process_count=2, process_index=1) == 0
  assert command(config=config, num_train=2, process_count=2, process_index=0) == 0
  assert command(config=config, num_train=2, process_count=2) == 0
  assert '  train      2 examples\n  val        1 examples\n' in capsys.readouterr().out
  assert load('simulated', 'train', tmp_path / 'data')[1]['images'].shape == (2, 8, 8, 3)


def test_the_command_reports_a_bad_config_in_one_line(tmp_path):
  flag = '--config.simulator.frames=3'
  message = "--config: no field 'frames'; expected one of those in the config file"
  options = ['--dataset=simulated', '--config=configs/simulated.py', f'--data_dir={tmp_path / "data"}', flag]
  result = programs.run('-m', 'tfds_ddff.build', *options)
  assert (result.returncode, result.stderr) == (2, f'tfds_ddff.build: error: {message}\n')
  assert not (tmp_path / 'data').exists()
