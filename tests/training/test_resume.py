"""Nothing is lost: runs that are killed, stopped, out of disk space, or find a damaged checkpoint end like undisturbed
runs.

With a network that compiles quickly (`toy`), real data files, and real processes.
"""

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import toy

from focal_jax.errors import InputError, RunError
from focal_jax.models.npz_file import load_weights
from focal_jax.training.checkpoints import Checkpoints
from focal_jax.training.loop import train_and_evaluate

STEPS = 40
KILLS = 20
TIMES = ('step_seconds', 'stacks_per_second', 'host_memory_gb', 'device_memory_gb')  # what may differ


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """The name of a source of a few stacks."""
  return toy.write_stacks(tmp_path_factory.mktemp('data'))


def resumable(data):
  """Checkpoints every three steps, updates and lines of metrics every two, so that some checkpoints lie between the
  steps of an update and of a line.
  """
  config = toy.get_config(data)
  config.optimizer.steps_per_update = config.log_every = 2
  return config


@pytest.fixture
def config(data):
  return resumable(data)


@pytest.fixture(scope='module')
def straight(data, tmp_path_factory):
  """The folder of an undisturbed run."""
  workdir = tmp_path_factory.mktemp('straight') / 'run'
  train_and_evaluate(resumable(data), workdir)
  return workdir


def metrics(workdir):
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def checkpoints(workdir):
  return sorted(int(path.name) for path in (workdir / 'checkpoints').glob('*') if path.name.isdigit())


def assert_same_run(workdir, straight, validation=True):
  """Weights bit for bit, the best ones too, and every number on the way."""
  for name in ('weights.npz', 'best.npz') if validation else ('weights.npz',):
    assert_same_weights(workdir, straight, name)
  lines = [[line for line in metrics(folder) if validation or 'loss' in line] for folder in (workdir, straight)]
  assert lines[0] == lines[1]


def assert_same_weights(workdir, straight, name):
  (ours, about), (theirs, about_theirs) = load_weights(workdir / name), load_weights(straight / name)
  assert about == about_theirs
  ours, theirs = dict(flatten(ours)), dict(flatten(theirs))
  assert ours.keys() == theirs.keys()
  for key, value in ours.items():
    np.testing.assert_array_equal(value, theirs[key], err_msg=f'{name}: {key}')


def flatten(tree, prefix=''):
  for key, value in tree.items():
    yield from flatten(value, f'{prefix}/{key}') if isinstance(value, dict) else [(f'{prefix}/{key}', value)]


def train_in_child(config, workdir, cache, size_limit=None):
  """What a child process does; its exit status is that of the command line."""
  import jax

  jax.config.update('jax_compilation_cache_dir', cache)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  if size_limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_limit, resource.RLIM_INFINITY))
  try:
    train_and_evaluate(config, workdir)
  except RunError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path(f'{workdir}.error').write_text(str(error))
    os._exit(error.status)


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """start(config, workdir) -> a running process. Children are forked from one that has done the imports."""
  cache = str(tmp_path_factory.mktemp('cache'))
  with pytest.MonkeyPatch.context() as patch:
    root = Path(__file__).parents[2]
    patch.setenv('PYTHONPATH', os.pathsep.join([str(root), str(root / 'tests')]))
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['toy', 'focal_jax.training.loop'])
    running = []

    def start(config, workdir, *arguments):
      process = context.Process(target=train_in_child, args=(config, workdir, cache, *arguments))
      process.start()
      running.append(process)
      return process

    yield start
    for process in running:
      process.kill()


def wait_for_step(workdir, step, process):
  """Until a line of metrics says that the run is beyond `step`."""
  deadline, alive = time.monotonic() + 120, True
  while time.monotonic() < deadline and alive:
    alive = process.is_alive()  # before looking, for it may end in between
    with contextlib.suppress(OSError, ValueError, IndexError):
      if json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])['step'] > step:
        return
    time.sleep(0.01)
  pytest.fail(f'the run ended or hung before step {step}: exit status {process.exitcode}')


@pytest.mark.slow
def test_the_best_weights_are_those_with_the_least_error(straight):
  errors = {line['step']: line['validation/mse'] for line in metrics(straight) if 'validation/mse' in line}
  assert sorted(errors) == [10, 20, 30, 40]
  assert load_weights(straight / 'best.npz')[1]['steps'] == min(errors, key=errors.get)


@pytest.mark.slow
def test_killed_at_random_moments(start, config, straight, tmp_path):
  """kill -9, twenty times: a moment after a random step, or before the first; runs that nevertheless come to their end
  are compared, and others begun in their place.
  """
  rng = np.random.default_rng(0)
  kills = saves = runs = 0
  steps = set()
  while kills < KILLS:
    workdir = tmp_path / f'run{runs}'
    runs += 1
    while True:
      process = start(config, workdir)
      if kills < KILLS:
        reached = max(checkpoints(workdir), default=0)
        if rng.random() < 0.8:
          wait_for_step(workdir, rng.integers(reached, min(reached + 15, STEPS)), process)
        process.join(rng.uniform(0, 0.3))
      else:
        process.join(120)
      if process.exitcode is not None:
        assert process.exitcode == 0
        break
      process.kill()
      process.join()
      kills += 1
      steps.update(checkpoints(workdir))
      saves += any((workdir / 'checkpoints').glob('*tmp*'))
    assert_same_run(workdir, straight)
  print(f'{kills} kills in {runs} runs, {saves} of them while saving; checkpoints left: {sorted(steps)}')
  assert len(steps) > 2  # not all before the first checkpoint


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(start, config, straight, tmp_path, number):
  config.checkpoint_every = 1000
  workdir = tmp_path / 'run'
  process = start(config, workdir)
  wait_for_step(workdir, 5, process)
  os.kill(process.pid, number)
  process.join(60)
  assert process.exitcode == 128 + number
  (step,) = checkpoints(workdir)
  assert 5 < step < STEPS
  assert f'after step {step} of 40' in Path(f'{workdir}.error').read_text()
  assert not (workdir / 'weights.npz').exists()
  train_and_evaluate(config, workdir)
  assert_same_run(workdir, straight)


@pytest.fixture(scope='module')
def after_26_steps(data, tmp_path_factory):
  workdir, config = tmp_path_factory.mktemp('interrupted') / 'run', resumable(data)
  config.steps = 26
  config.optimizer.schedule = 'constant'
  train_and_evaluate(config, workdir)
  assert checkpoints(workdir) == [24, 26]
  return workdir


@pytest.fixture
def interrupted(after_26_steps, config, tmp_path):
  """A run of 30 steps of which 26 are done, with checkpoints 24 and 26."""
  config.steps = 30
  config.optimizer.schedule = 'constant'
  return shutil.copytree(after_26_steps, tmp_path / 'run')


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0x10
  path.write_bytes(content)


def largest(folder):
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGES = {
  'a bit of the largest file': lambda folder: flip(largest(folder)),
  'half of the largest file': lambda folder: os.truncate(largest(folder), largest(folder).stat().st_size // 2),
  'the state': lambda folder: shutil.rmtree(folder / 'state'),
  'the note': lambda folder: (folder / 'note' / 'metadata').write_text('{"stacks": '),
}


@pytest.mark.slow
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_falls_back(interrupted, config, damage, caplog, tmp_path):
  shutil.copytree(interrupted, tmp_path / 'whole')
  train_and_evaluate(config, tmp_path / 'whole')
  DAMAGES[damage](interrupted / 'checkpoints' / '26')
  with caplog.at_level('INFO', logger='focal_jax'):
    train_and_evaluate(config, interrupted)
  assert 'the checkpoint of step 26 is damaged' in caplog.text
  assert 'continuing from step 24' in caplog.text
  assert (interrupted / 'damaged_checkpoints' / '26').is_dir()
  assert checkpoints(interrupted) == [27, 30]
  assert_same_run(interrupted, tmp_path / 'whole', validation=False)  # 26 was a last step, and is none now


def test_numbers_that_are_not_those_saved(tmp_path):
  """Damage that readers do not notice."""
  checkpoints = Checkpoints(tmp_path, 3)
  for step in (1, 2):
    checkpoints.save(step, {'x': np.full(3, step, np.float32)}, {'stacks': step})
  checkpoints.close()
  shutil.rmtree(tmp_path / 'checkpoints' / '2' / 'state')
  shutil.copytree(tmp_path / 'checkpoints' / '1' / 'state', tmp_path / 'checkpoints' / '2' / 'state')
  checkpoints = Checkpoints(tmp_path, 3)
  state, note = checkpoints.restore({'x': np.zeros(3, np.float32)})
  checkpoints.close()
  np.testing.assert_array_equal(state['x'], [1, 1, 1])
  assert note == {'stacks': 1}


def test_a_checkpoint_of_something_else_is_refused(interrupted, config):
  before = (interrupted / 'config.json').read_text()
  config.ema_decay = 0.0
  with pytest.raises(InputError, match=r'checkpoints/26: found .*ema.* as float32.*, expected nothing'):
    train_and_evaluate(config, interrupted)
  assert checkpoints(interrupted) == [24, 26]
  assert (interrupted / 'config.json').read_text() == before


def test_a_run_goes_on_with_another_config(interrupted, config, caplog):
  """This is logged, and remembered."""
  config.loss.motion_weight = 0.5
  train_and_evaluate(config, interrupted)
  assert 'continuing with loss.motion_weight = 0.5; it was 0.05' in caplog.text
  assert json.loads((interrupted / 'config.json').read_text())['loss']['motion_weight'] == 0.5
  before, after = (next(line for line in metrics(interrupted) if line['step'] == step) for step in (26, 28))
  for line, weight in ((before, 0.05), (after, 0.5)):
    assert line['loss'] == pytest.approx(line['depth_loss'] + weight * line['motion_px'], rel=1e-4)


@pytest.mark.slow
def test_a_full_disk_ends_the_run(start, config, interrupted, tmp_path):
  """No file may grow beyond 12 kB, which stands in for it: the same call fails in the same place."""
  shutil.copytree(interrupted, tmp_path / 'whole')
  train_and_evaluate(config, tmp_path / 'whole')
  config.log_every = 100  # nothing else is written meanwhile
  process = start(config, interrupted, 12_000)
  process.join(120)
  message = Path(f'{interrupted}.error').read_text()
  assert process.exitcode == 1, message
  assert 'the checkpoint of step 27 could not be written' in message
  assert 'that of step 26 is intact' in message
  assert '\n' not in message
  train_and_evaluate(config, interrupted)
  assert_same_weights(interrupted, tmp_path / 'whole', 'weights.npz')


def test_a_step_that_is_not_finite_is_skipped(config, data, tmp_path, caplog):
  """A stack whose depth overflows: steps with it change nothing and are counted, and too many of them end the run."""
  folder = tmp_path / 'data'
  shutil.copytree(data.removeprefix('folder:'), folder)
  np.save(folder / 'train' / '3' / 'target.npy', np.full((40, 36), 1e30))
  config.data.source = f'folder:{folder}'
  config.update(batch_size=1, steps=14, log_every=1, checkpoint_every=1, keep_checkpoints=20, validation_every=100)
  with caplog.at_level('WARNING', logger='focal_jax'):
    train_and_evaluate(config, tmp_path / 'run')
  skipped = [line['skipped'] for line in metrics(tmp_path / 'run') if 'skipped' in line]
  bad = [step for step in range(1, 15) if skipped[step - 1] > (skipped[step - 2] if step > 1 else 0)]
  assert len(bad) == 2  # an epoch has seven stacks
  for step in bad:
    assert f'step {step} was skipped: loss inf' in caplog.text
  weights, _ = load_weights(tmp_path / 'run' / 'weights.npz')
  assert all(np.isfinite(value).all() for _, value in flatten(weights))

  for name in ('0', '1', '2', '4', '5', '6'):
    shutil.copy(folder / 'train' / '3' / 'target.npy', folder / 'train' / name / 'target.npy')
  config.max_skipped = 3
  with pytest.raises(RunError, match='3 steps in a row, up to step 3, was not finite'):
    train_and_evaluate(config, tmp_path / 'hopeless')
