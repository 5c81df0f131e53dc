"""Sweeps: which runs, in which order, on which device; which files they leave; and that the table matches the runs.

The runs are small scripts that write the files of a training run.
"""

import csv
import importlib
import json
import os
import re
import signal
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import programs
import pytest
from ml_collections import ConfigDict
from PIL import Image

from focal_jax.errors import InputError
from focal_jax.recipes import default
from focal_jax.sweeps import train_one
from focal_jax.sweeps.devices import find_devices, make_devices
from focal_jax.sweeps.sweep import run_sweep, train_command
from focal_jax.sweeps.tables import mean_and_spread
from focal_jax.sweeps.variants import Add, declared_variants, make_runs, override, variant_name
from focal_jax.training import loop as train
from focal_jax.training.data import TrainingData
from focal_jax.training.parallel import Devices
from focal_jax.training.validation import Validation

ROOT = Path(__file__).parents[2]
READY = [path.stem for path in sorted((ROOT / 'configs' / 'ablations').glob('*.py')) if path.stem != '__init__']

# Like training: claims its folder, writes a checkpoint after each step, stops on SIGTERM. `events` is next to the runs.
# With a file `hurry` next to the sweep, steps take no time.
FAKE = """
import json, os, pathlib, signal, sys, time
config, workdir = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
def note(what, **more):
  with (workdir.parent / 'events').open('a') as file:
    file.write(json.dumps({'what': what, 'name': workdir.name, 'time': time.monotonic(), **more}) + '\\n')
def stop(*_):
  note('stop')
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
for path in config['init'].values():
  assert not path or pathlib.Path(path).read_text(), path
workdir.mkdir(exist_ok=True)
(workdir / 'config.json').write_text(json.dumps(config))
done = max([int(path.name) for path in workdir.glob('checkpoints/*')], default=0)
note('start', step=done, device=os.environ.get('CUDA_VISIBLE_DEVICES'))
for step in range(done + 1, config['steps'] + 1):
  if not (workdir.parents[1] / 'hurry').exists():
    time.sleep(config['seconds_a_step'])
  (workdir / 'checkpoints' / str(step)).mkdir(parents=True)
if config['mode'] == 'fail':
  sys.exit('out of memory')
mse = config['model']['width'] + 0.1 * config['seed'] ** 2
with (workdir / 'metrics.jsonl').open('a') as file:
  print(json.dumps({'step': 0, 'validation/mse': 99.0}), file=file)
  if config['mode'] != 'blind':
    print(json.dumps({'step': config['steps'], 'validation/mse': mse, 'validation/mae': mse / 2}), file=file)
  print(json.dumps({'step': config['steps'], 'loss': 7.0}), file=file)
(workdir / 'weights.npz').write_text('weights')
note('end')
"""


def small_config(**changes):
  config = ConfigDict(
    {
      'seed': 0,
      'steps': 2,
      'mode': '',
      'seconds_a_step': 0.0,
      'model': {'width': 1.0, 'deep': False, 'name': 'x'},
      'init': {'depth': ''},
      'crop': (1, 2),
    }
  )
  config.update(changes)
  return config


@pytest.fixture
def sweep(tmp_path, monkeypatch):
  """run_sweep with the fake training in `folder`, on one device."""
  monkeypatch.setattr('focal_jax.sweeps.sweep._POLL_S', 0.01)
  script = tmp_path / 'fake.py'
  script.write_text(FAKE)

  def run(declare, config=None, **more):
    more = {'seeds': 1, 'devices': make_devices('gpu', ['0']), **more}

    def command(*paths):
      return [sys.executable, '-S', str(script), *map(str, paths)]

    return run_sweep(config or small_config(), declare, run.folder, command=command, **more)

  run.folder = tmp_path / 'sweep'
  return run


def events(folder):
  return [json.loads(line) for line in (folder / 'events').read_text().splitlines()]


def names(folder, what='start'):
  return [event['name'] for event in events(folder) if event['what'] == what]


def rows(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def widths(*values):
  def declare(add):
    for value in values:
      add({'model.width': value})

  return declare


def test_names_are_stable_and_safe():
  assert variant_name({}) == 'base'
  assert variant_name({'b': 1, 'a.x': 0.5}) == variant_name({'a.x': 0.5, 'b': 1}) == 'a.x=0.5,b=1'
  assert variant_name({'crop': (3, 10)}) == 'crop=3+10'
  long = variant_name({f'field_{n}': 'value' for n in range(40)})
  other = variant_name({f'field_{n}': 'value' if n < 39 else 'valve' for n in range(40)})
  assert long == 'field_0=value,' + long[14:]
  assert long != other
  odd = [variant_name({'a': value}) for value in ('data/x y', 'data/x_y', 'data:x y', '', '../..', '~', 'ä', (), ('',))]
  assert len(set(odd)) == len(odd)
  for name in (*odd, long, other):
    assert re.fullmatch(r'[A-Za-z0-9=,._+~-]{1,150}', name)


def test_names_of_runs_show_where_they_start_from(tmp_path):
  config = small_config()

  def declare(add):
    first = add({'model.width': 2})
    add({'init.depth': first.weights, 'steps': 0})

  first, second = make_runs(config, declared_variants(config, declare), tmp_path, 1)
  assert first.name == 'model.width=2.0,seed=0'
  assert second.name == 'init.depth=model.width-2.0,steps=0,seed=0'
  assert second.config.init.depth == str(tmp_path / first.name / 'weights.npz')
  assert second.needs == (first,)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'model.widht': 1.0}, "no field 'model.widht'"),
    ({'steps.x': 1}, "no field 'steps.x'"),
    ({'model': 1}, "'model' is a section of the config, expected one of its fields"),
    ({'model.width': 'wide'}, "model.width is 'wide', expected a value of type float"),
    ({'steps': 1.5}, 'steps is 1.5, expected a value of type int'),
    ({'steps': True}, 'steps is True, expected a value of type int'),
    ({'model.deep': 1}, 'model.deep is 1, expected a value of type bool'),
    ({'crop': 3}, 'crop is 3, expected a value of type tuple'),
    ({'seed': 1}, 'seed is 1 in a variant'),
    ({'steps': Add(small_config())().weights}, 'weights of a variant of another sweep'),
    ({'model.width': 2}, "'model.width=2.0' is the same as 'model.width=2.0'"),
    ({'model.width': 1.0}, "'model.width=1.0' is the same as 'as it is'"),
  ],
)
def test_overrides_are_checked(sweep, overrides, message):
  def declare(add):
    add()
    add({'model.width': 2.0})
    add(overrides)

  with pytest.raises(InputError, match=re.escape(message)):
    sweep(declare)
  assert not sweep.folder.exists()


def test_a_sweep_that_raises_or_declares_nothing(sweep):
  def raises(add):
    return add.config.no_such_field

  with pytest.raises(
    InputError, match=r'test_sweep\.py, line \d+: sweep\(add\) raised AttributeError: .*no_such_field'
  ):
    sweep(raises)
  with pytest.raises(InputError, match='declares no variant'):
    sweep(lambda add: None)
  with pytest.raises(InputError, match="two variants have the label 'x'"):
    sweep(lambda add: [add(label='x'), add(steps=1, label='x')])
  with pytest.raises(InputError, match='--seeds is 0'):
    sweep(widths(1.0), seeds=0)
  assert not sweep.folder.exists()


def test_mean_and_spread():
  values = np.random.default_rng(0).normal(3.0, 0.1, 7).tolist()
  assert mean_and_spread(values) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
  assert mean_and_spread([2.0]) == (2.0, None)


def test_tables_and_plot(sweep):
  def declare(add):
    add(steps=3, report=False, label='a step only')
    add({'model.width': 2.0}, label='wide|r')
    add(label='as published')

  assert sweep(declare, seeds=3, title='a title') == 0
  mses = {'wide|r': [2.0, 2.1, 2.4], 'as published': [1.0, 1.1, 1.4]}
  table = rows(sweep.folder / 'table.csv')
  assert [row['variant'] for row in table] == list(mses)
  for row in table:
    values = mses[row['variant']]
    assert row['seeds'] == '3'
    assert float(row['mse_mean']) == pytest.approx(statistics.mean(values))
    assert float(row['mse_sd']) == pytest.approx(statistics.stdev(values))
    assert float(row['mae_sd']) == pytest.approx(statistics.stdev(values) / 2)
  markdown = (sweep.folder / 'table.md').read_text()
  assert '| wide\\|r | 3 |  | 2.167 ± 0.21 | 1.083 ± 0.10 |' in markdown
  assert 'Missing' not in markdown
  runs = rows(sweep.folder / 'runs.csv')
  assert len(runs) == 9
  assert runs[1] | {'seconds': ''} == {
    **{'variant': 'wide|r', 'overrides': 'model.width=2.0', 'seed': '0', 'step': '2', 'mse': '2.0', 'mae': '1.0'},
    **{'seconds': '', 'parameters': '', 'folder': 'model.width=2.0,seed=0'},
  }
  with Image.open(sweep.folder / 'plot.png') as image:
    assert len(np.unique(np.asarray(image.convert('RGB')).reshape(-1, 3), axis=0)) > 10


def test_one_seed_has_no_spread(sweep):
  assert sweep(widths(1.0, 2.0)) == 0
  assert [row['mse_sd'] for row in rows(sweep.folder / 'table.csv')] == ['', '']
  assert '±' not in (sweep.folder / 'table.md').read_text()


def test_seeds_follow_that_of_the_recipe(sweep):
  assert sweep(widths(1.0, 2.0), small_config(seed=5), seeds=2) == 0
  assert names(sweep.folder) == [f'model.width={width},seed={seed}' for seed in (5, 6) for width in (1.0, 2.0)]


def test_the_time_left_is_not_judged_by_a_run_of_few_steps(sweep, caplog):
  def declare(add):
    add(steps=1)
    add(steps=500)
    add(steps=50)  # a tenth of the last one's time: on a busy machine, too, less than a second

  caplog.set_level('INFO')
  sweep(declare)
  lines = [line for line in caplog.messages if 'finished in' in line]
  assert [re.sub(r'.*finished in [0-9:.]+', '', line) for line in lines] == [
    ', 1 of 3',  # its second would be taken for that of a step
    ', 2 of 3, about 0:00 left',
    ', 3 of 3',
  ]


def test_finished_runs_are_kept(sweep):
  assert sweep(widths(1.0)) == 0
  (sweep.folder / 'table.md').unlink()
  before = {path: path.stat().st_mtime_ns for path in sweep.folder.glob('model*/*')}
  assert sweep(widths(1.0)) == 0
  assert (sweep.folder / 'table.md').exists()
  assert sweep(widths(1.0, 2.0), seeds=2) == 0
  assert {path: path.stat().st_mtime_ns for path in before} == before
  assert names(sweep.folder) == [
    f'model.width={run}' for run in ('1.0,seed=0', '2.0,seed=0', '1.0,seed=1', '2.0,seed=1')
  ]


def test_runs_without_weights_or_last_validation_are_repeated(sweep):
  sweep(widths(1.0, 2.0))
  (sweep.folder / 'model.width=1.0,seed=0' / 'weights.npz').unlink()
  metrics = sweep.folder / 'model.width=2.0,seed=0' / 'metrics.jsonl'
  metrics.write_text(metrics.read_text().splitlines()[0] + '\n{"step": 2, "valida')  # killed as it wrote
  assert sweep(widths(1.0, 2.0)) == 0
  assert [(event['name'][:15], event['step']) for event in events(sweep.folder) if event['what'] == 'start'][2:] == [
    ('model.width=1.0', 2),
    ('model.width=2.0', 2),
  ]


def in_another_process(sweep):
  """The sweep of three variants, of 40 steps of 0.05 s each, on two devices, as a process."""
  code = (
    'import json, pathlib, sys\n'
    'from ml_collections import ConfigDict\n'
    'from focal_jax.sweeps.sweep import run_sweep\n'
    'from focal_jax.sweeps.devices import make_devices\n'
    'folder, config = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])\n'
    'command = lambda *paths: [sys.executable, "-S", str(folder.parent / "fake.py"), *map(str, paths)]\n'
    'sweep = lambda add: [add({"model.width": width}) for width in (1.0, 2.0, 3.0)]\n'
    'devices = make_devices("gpu", ["0", "1"])\n'
    'sys.exit(run_sweep(ConfigDict(config), sweep, folder, seeds=1, devices=devices, command=command))\n'
  )
  config = small_config(steps=40, seconds_a_step=0.05)
  return programs.Program('-c', code, sweep.folder, json.dumps(config.to_dict()))


def wait_for_step(sweep, step, runs, process=None):
  deadline = time.monotonic() + 60
  while len(list(sweep.folder.glob(f'*/checkpoints/{step}'))) < runs:
    assert time.monotonic() < deadline
    assert process is None or process.is_running(), process.wait().stderr
    time.sleep(0.02)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_the_runs_and_the_sweep_continues_later(sweep, number):
  process = in_another_process(sweep)
  wait_for_step(sweep, 3, 2, process)
  os.kill(process.pid, number)
  result = process.wait()
  assert result.returncode == 128 + number, result.stderr
  assert '0 of 3 runs finished; the same command continues' in result.stdout
  assert len(names(sweep.folder, 'stop')) == 2
  assert not (sweep.folder / 'table.md').exists()

  (sweep.folder.parent / 'hurry').touch()
  config = small_config(steps=40, seconds_a_step=0.05)
  runs = widths(1.0, 2.0, 3.0)
  assert sweep(runs, config, devices=make_devices('gpu', ['0', '1', '2'])) == 0
  starts = {event['name']: event['step'] for event in events(sweep.folder) if event['what'] == 'start'}
  assert starts['model.width=1.0,seed=0'] >= 3
  assert starts['model.width=2.0,seed=0'] >= 3
  assert starts['model.width=3.0,seed=0'] == 0
  assert len(rows(sweep.folder / 'table.csv')) == 3


def test_killed_sweep_continues_once_its_runs_have_ended(sweep, capsys):
  process = in_another_process(sweep)
  wait_for_step(sweep, 3, 2, process)
  os.kill(process.pid, signal.SIGKILL)
  assert process.wait().returncode == -signal.SIGKILL
  config, runs = small_config(steps=40, seconds_a_step=0.05), widths(1.0, 2.0, 3.0)
  with pytest.raises(InputError, match='a sweep, or a run of one, is at work here'):
    sweep(runs, config)
  sweep(runs, config, dry_run=True)
  states = capsys.readouterr().out.splitlines()
  assert re.fullmatch(r'interrupted at step \d+ of 40 +model\.width=1\.0,seed=0', states[0])
  assert re.fullmatch(r'to do +model\.width=3\.0,seed=0', states[2])
  (sweep.folder.parent / 'hurry').touch()
  wait_for_step(sweep, 40, 2)
  time.sleep(0.3)  # their end
  assert sweep(runs, config) == 0
  assert names(sweep.folder)[2:] == ['model.width=3.0,seed=0']


def test_dry_run_writes_nothing(sweep, capsys):
  assert sweep(widths(1.0, 2.0), dry_run=True) == 0
  assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
    ['to', 'do', 'model.width=1.0,seed=0'],
    ['to', 'do', 'model.width=2.0,seed=0'],
  ]
  assert not sweep.folder.exists()


def test_failures_are_reported_and_the_others_run(sweep, capsys):
  def declare(add):
    broken = add(mode='fail', label='broken')
    add({'init.depth': broken.weights}, label='on broken ground')
    add(mode='blind', label='blind')
    add(label='good')

  assert sweep(declare) == 1
  assert [row['mse_mean'] for row in rows(sweep.folder / 'table.csv')] == ['', '', '', '1.0']
  errors = capsys.readouterr().err.splitlines()
  log = sweep.folder / 'logs' / 'mode=fail,seed=0.txt'
  assert f'mode=fail,seed=0: failed: ended with status 1: out of memory; see {log}' in errors
  assert 'init.depth=mode-fail,seed=0: not run: it needs mode=fail,seed=0' in errors
  assert any(line.startswith('mode=blind,seed=0: failed: ended without a validation at its last') for line in errors)
  missing = (sweep.folder / 'table.md').read_text().partition('Missing')[2]
  assert missing.count('\n* ') == 3
  assert 'out of memory' in log.read_text()


def test_weights_are_handed_on_with_the_seed(sweep):
  def declare(add):
    first = add({'model.width': 2.0}, report=False)
    second = add({'init.depth': first.weights}, report=False)
    add({'init.depth': second.weights, 'model.width': 3.0}, label='third')

  assert sweep(declare, small_config(seconds_a_step=0.02), seeds=2, devices=make_devices('gpu', list('0123'))) == 0
  third = 'init.depth=init.depth-model.width-2.0,model.width=3.0'
  times = {(event['name'], event['what']): event['time'] for event in events(sweep.folder)}
  for seed in (0, 1):
    chain = [f'{name},seed={seed}' for name in ('model.width=2.0', 'init.depth=model.width-2.0', third)]
    for before, after in zip(chain, chain[1:], strict=False):
      assert times[before, 'end'] < times[after, 'start']
      config = json.loads((sweep.folder / after / 'config.json').read_text())
      assert config['init']['depth'] == str(sweep.folder / before / 'weights.npz')
      assert config['seed'] == seed
  assert [row['variant'] for row in rows(sweep.folder / 'table.csv')] == ['third']


def test_weights_that_a_run_began_with_must_be_there(sweep):
  def declare(add):
    add({'init.depth': add({'model.width': 2.0}).weights})

  sweep(declare)
  sweep.folder = sweep.folder.rename(sweep.folder.with_name('moved'))  # what runs started from may move with them
  assert sweep(declare) == 0
  assert len(names(sweep.folder)) == 2
  (sweep.folder / 'model.width=2.0,seed=0' / 'weights.npz').unlink()
  with pytest.raises(InputError, match=r'began with weights of model\.width=2\.0,seed=0, which is not finished'):
    sweep(declare)


def test_one_run_a_device_at_a_time_and_all_devices(sweep):
  devices = make_devices('gpu', ['0', '3', 'GPU-abc'])
  assert sweep(widths(*map(float, range(8))), small_config(seconds_a_step=0.1), devices=devices) == 0
  running, used, most = {}, set(), 0
  for event in sorted(events(sweep.folder), key=lambda event: event['time']):
    if event['what'] == 'start':
      assert event['device'] not in running.values()
      running[event['name']] = event['device']
      used.add(event['device'])
      most = max(most, len(running))
    else:
      del running[event['name']]
  assert used == {'0', '3', 'GPU-abc'}
  assert most == 3


def test_devices_are_found(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert [device.name for device in find_devices()] == ['CPU']
  monkeypatch.setattr('focal_jax.sweeps.devices._ASK', """print('warning'); print('["cpu", 1]')""")
  with pytest.raises(InputError, match='--devices is 0,1, but jax finds no GPU or TPU'):
    find_devices(['0', '1'])
  with pytest.raises(InputError, match='--devices is 0,0, expected each device once'):
    find_devices(['0', '0'])
  monkeypatch.setattr('focal_jax.sweeps.devices._ASK', """print('["gpu", 2]')""")
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  assert [device.environment['CUDA_VISIBLE_DEVICES'] for device in find_devices()] == ['0', '1']
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,GPU-abc')
  assert [device.environment['CUDA_VISIBLE_DEVICES'] for device in find_devices()] == ['2', 'GPU-abc']
  assert [device.name for device in find_devices(['7'])] == ['GPU 7']
  monkeypatch.setattr('focal_jax.sweeps.devices._ASK', "raise RuntimeError('no driver')")
  with pytest.raises(InputError, match='jax finds no devices: RuntimeError: no driver'):
    find_devices()


def test_environments_of_devices():
  tpus = make_devices('tpu', ['0', '1'])
  assert [device.environment['TPU_VISIBLE_CHIPS'] for device in tpus] == ['0', '1']
  assert len({device.environment['TPU_MESH_CONTROLLER_PORT'] for device in tpus}) == 2
  (cpu,) = make_devices('cpu', ['0', '1'])
  assert cpu.environment == {}


def test_runs_of_another_recipe_are_refused(sweep):
  sweep(widths(1.0))
  before = sorted(sweep.folder.rglob('*'))
  changed = small_config(steps=3)
  changed.model.deep = True
  message = 'model.width=1.0,seed=0: trained with model.deep False, expected True; choose another --workdir'
  with pytest.raises(InputError, match=re.escape(message)):
    sweep(widths(2.0, 1.0), changed)
  assert sorted(sweep.folder.rglob('*')) == before


def test_other_folders_are_refused(sweep):
  folder = sweep.folder / 'model.width=1.0,seed=0'
  folder.mkdir(parents=True)
  (folder / 'config.json.partial').write_text('{')  # of a run that was killed at once: no reason not to start
  assert sweep(widths(1.0), dry_run=True) == 0
  (folder / 'holiday.jpg').write_text('precious')
  with pytest.raises(InputError, match='not a folder of a run'):
    sweep(widths(1.0))
  (folder / 'config.json').write_text('{')
  with pytest.raises(InputError, match='not the config of a run'):
    sweep(widths(1.0))
  sweep.folder = folder / 'holiday.jpg'
  with pytest.raises(InputError, match='is a file, expected a folder'):
    sweep(widths(1.0))


@pytest.mark.parametrize(
  ('name', 'variant'),
  [(name, variant) for name in READY for variant in ('', 'smoke', 'small') if (name, variant) != ('networks', 'small')],
)
def test_ready_sweeps_are_valid(name, variant, tmp_path):
  """The part of training that checks a config before the first step."""
  module = importlib.import_module(f'configs.ablations.{name}')
  config = module.get_config(variant)
  runs = make_runs(config, declared_variants(config, module.sweep), tmp_path, 1)
  assert len(runs) >= 3
  for run in runs:
    devices = Devices(run.config.parallel, None)
    Validation(run.config, train.model_of(run.config), devices, run.workdir)
    TrainingData(run.config, devices)
    assert run.config.steps <= {'': 100_000, 'smoke': 4, 'small': 300}[variant]
  with pytest.raises(ValueError, match=f"unknown variant 'quick' of configs/ablations/{name}.py"):
    module.get_config('quick')
  assert f'--config=configs/ablations/{name}.py ' in module.__doc__


@pytest.mark.parametrize('variant', ['', 'smoke'])
def test_stages_cost_the_same_number_of_steps(variant, tmp_path):
  from configs.ablations import stages

  config = stages.get_config(variant)
  config.steps += 1
  runs = make_runs(config, declared_variants(config, stages.sweep), tmp_path, 1)
  reported = [run for run in runs if run.variant.report]
  assert [run.variant.label for run in reported] == ['end to end', 'two stages', 'two stages, then end to end']
  assert {run.config.steps + sum(need.config.steps for need in run.needs) for run in reported} == {config.steps}


def test_overriding_reports_the_value_as_it_is_stored():
  config = default.get_config()
  assert override(config, 'loss.pyramid_weights', [1.0]) == (1.0,)
  assert repr(override(config, 'optimizer.clip_norm', 1)) == '1.0'


def test_a_network_is_replaced_with_its_fields():
  config = default.get_config()
  assert override(config, 'model.depth', {'name': 'dfv', 'level': 2}) == {'name': 'dfv', 'level': 2}
  assert config.model.depth.to_dict() == {'name': 'dfv', 'differential': True, 'level': 2, 'channel_divisor': 1}
  assert override(config, 'model.depth.level', 3) == 3
  with pytest.raises(InputError, match=r'model\.align\.passes is 2, expected no such field; metadata has none'):
    override(config, 'model.align', {'name': 'metadata', 'passes': 2})
  names = [variant_name({'model.depth': depth}) for depth in ({'name': 'dfv'}, {'name': 'dfv', 'level': 2})]
  assert names[0] == 'model.depth=dfv'
  assert re.fullmatch(r'model\.depth=dfv~[0-9a-f]{8}', names[1])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config=configs/simulated.py', '--workdir={out}'], 'has no function sweep(add)'),
    (['--config=configs/ablations/alignment.py:quick', '--workdir={out}'], "unknown variant 'quick'"),
    (['--config=configs/ablations/alignment.py'], 'sweep needs --workdir'),
  ],
)
def test_command_line_errors(arguments, message, tmp_path):
  out = tmp_path / 'out'
  result = command_line(*(argument.format(out=out) for argument in arguments))
  assert result.returncode == 2
  assert len(result.stderr.strip().splitlines()) == 1, result.stderr
  assert message in result.stderr
  assert not out.exists()


def test_command_line_lists_what_is_to_do(tmp_path):
  arguments = ('--config=configs/ablations/stages.py:smoke', '--config.steps=12', f'--workdir={tmp_path}', '--seeds=2')
  result = command_line(*arguments, '--dry_run')
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert len(lines) == 14
  assert lines[1].split() == ['to', 'do', 'best_metric=motion_px,networks=alignment,steps=6,seed=0']


def test_command_line_writes_the_table_anew(sweep, tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(
    'from ml_collections import ConfigDict\n'
    f'def get_config(): return ConfigDict({small_config().to_dict()!r})\n'
    "def sweep(add): add({'model.width': 2.0}, label='wide')\n"
  )
  assert sweep(widths(2.0), small_config(steps=3), seeds=2) == 0
  arguments = (f'--config={file}', f'--workdir={sweep.folder}', '--seeds=2')
  result = command_line(*arguments, '--config.steps=3')
  assert result.returncode == 0, result.stderr
  assert f'{file}: 2 runs, 2 of them finished' in result.stderr
  assert '| wide | 2 |' in result.stdout
  result = command_line(*arguments)
  assert result.returncode == 2
  assert 'model.width=2.0,seed=0: trained with steps 3, expected 2' in result.stderr


def test_a_run_is_trained_with_the_config_that_the_sweep_wrote(tmp_path, monkeypatch):
  trained = []
  monkeypatch.setattr(train, 'train_and_evaluate', lambda *given: trained.append(given))
  config = default.get_config()
  (tmp_path / 'run.json').write_text(json.dumps(config.to_dict()))
  train_one.main(['train_one', str(tmp_path / 'run.json'), str(tmp_path / 'run')])
  assert trained == [(config, tmp_path / 'run')]
  assert train_command(tmp_path / 'run.json', tmp_path / 'run')[1:3] == ['-m', train_one.__name__]
  with pytest.raises(InputError, match='expected the file of a config and the folder of its run'):
    train_one.main(['train_one', 'run.json'])


def command_line(*arguments):
  return programs.run('-m', 'focal_jax.sweeps', *arguments, environment={'JAX_PLATFORMS': 'cpu'})
