"""One global batch on one device and on several, of one process and of two: the same step.

Valid pixels are spread unevenly, and the optimiser is plain SGD: Adam would hide a gradient of the wrong scale.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from focal_jax.errors import InputError
from focal_jax.models.npz_file import load_weights
from focal_jax.training import parallel

ROOT = Path(__file__).parents[2]

# Arguments: a JSON list of cases, and, for several processes, --coordinator and so on.
SCRIPT = """
import json, sys
import jax, numpy as np, optax
import toy
from focal_jax.training import parallel
from focal_jax.losses import LossSettings
from focal_jax.models.end_to_end import init_variables
from focal_jax.training.step import StepSettings, init_state, make_train_step

cases, processes = json.loads(sys.argv[1]), sys.argv[2:]
if processes:
  parallel.start_processes(processes[0], int(processes[1]), int(processes[2]))
batch = toy.random_batch(np.random.default_rng(0))
size = len(batch.images)

def noisy(keys, stack):  # random numbers must not depend on the devices either
  noise = jax.vmap(lambda key: jax.random.normal(key, stack.images.shape[1:]))(keys)
  return stack.replace(images=stack.images + 0.1 * noise)

def run(kind, count, accumulate=1, normalise=True, networks='both'):
  devices = parallel.Devices(kind, jax.devices()[:count] if count else None)
  model = toy.make_toy(parallel.AXIS, normalise)
  settings = StepSettings(networks, LossSettings(gradient_weight=0.1, gradient_scales=2), accumulate, ema_decay=0.5)
  tx = optax.sgd(0.1)
  state = devices.replicate(init_state(init_variables(model, 0), tx, settings, seed=3))
  step = devices.run(make_train_step(model, tx, noisy, settings), outputs=(False, False), training=True)
  # As data.pipeline does it: processes take turns.
  hosts = jax.process_count()
  index = np.arange(size, dtype=np.int32)[jax.process_index()::hosts].reshape(devices.local_count, -1)
  for _ in range(3):
    state, metrics = step(state, devices.share((index, jax.tree.map(lambda x: x[index], batch))))
    metrics = jax.device_get(metrics)
  leaves = jax.tree.leaves((state.params, state.batch_stats, state.ema, metrics))
  return [np.asarray(x).ravel().tolist() for x in leaves]

print('RESULT', json.dumps([run(*case) for case in cases]))
"""


@pytest.fixture(scope='module', autouse=True)
def compiled_once(tmp_path_factory):
  """By the processes that the tests start, which inherit it."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path_factory.mktemp('cache')))
    patch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    yield


def environment(devices):
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  return os.environ | {'XLA_FLAGS': flags, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])}


def start(command, devices):
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment(devices), **pipes)


def result(process):
  out, error = process.communicate(timeout=240)
  assert process.returncode == 0, error
  (line,) = [line for line in out.splitlines() if line.startswith('RESULT')]
  return json.loads(line.removeprefix('RESULT'))


def free_address():
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return f'localhost:{listener.getsockname()[1]}'


# (kind, number of devices, accumulate, batch normalisation, networks)
CASES = {
  'one device': ('pmap', 1, 1, True, 'both'),
  'two': ('pmap', 2, 1, True, 'both'),
  'four': ('pmap', 4, 1, True, 'both'),
  'one, shard_map': ('shard_map', 1, 1, True, 'both'),
  'four, shard_map': ('shard_map', 4, 1, True, 'both'),
  'one device, no normalisation': ('pmap', 1, 1, False, 'both'),
  'one, in four parts': ('pmap', 1, 4, False, 'both'),
  'two, in two parts': ('pmap', 2, 2, False, 'both'),
  'one device, alignment': ('pmap', 1, 1, True, 'alignment'),
  'four, alignment': ('shard_map', 4, 1, True, 'alignment'),
}


ALONE = ('one device', 'one device, no normalisation', 'one device, alignment')
QUICK = (*ALONE, 'two', 'four, alignment')  # either kind of devices among them


def after_steps(names):
  """{case: parameters, statistics, averages and metrics after three steps}, of one process."""
  return dict(zip(names, result(start(['-c', SCRIPT, json.dumps([CASES[name] for name in names])], 4)), strict=True))


@pytest.fixture(scope='module')
def quick_steps():
  return after_steps(QUICK)


@pytest.fixture(scope='module')
def steps(quick_steps):
  """As `after_steps`, of all cases."""
  return quick_steps | after_steps([name for name in CASES if name not in QUICK])


def assert_equal(got, expected, rtol=5e-5, atol=1e-5):  # sums over devices round otherwise: the gradient's norm by 2e-5
  for one, other in zip(got, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol, atol)


def assert_step_of_one(steps, case):
  (alone,) = (name for name in ALONE if CASES[name][3:] == CASES[case][3:])
  assert_equal(steps[case], steps[alone])


@pytest.mark.parametrize('case', [case for case in QUICK if case not in ALONE])
def test_devices_take_the_step_of_one(quick_steps, case):
  assert_step_of_one(quick_steps, case)


@pytest.mark.slow
@pytest.mark.parametrize('case', [case for case in CASES if case not in QUICK])
def test_more_devices_and_parts_take_the_step_of_one(steps, case):
  assert_step_of_one(steps, case)


def test_the_steps_are_not_all_the_same(quick_steps):
  first, *others = (quick_steps[name][0] for name in ALONE)
  for other in others:
    assert not np.allclose(first, other, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('kind', parallel.KINDS)
def test_two_processes_take_the_step_of_one(steps, kind):
  """Of two devices each, joined over loopback."""
  address, cases = free_address(), json.dumps([(kind, None, 1, True, 'both')])
  processes = [start(['-c', SCRIPT, cases, address, 2, index], 2) for index in range(2)]
  for process in processes:
    (got,) = result(process)
    assert_equal(got, steps['one device'])


@pytest.mark.slow
def test_runs_of_two_processes(tmp_path):
  """A whole run over loopback: the first process writes, Ctrl-C in the other stops both, and both go on.

  It is handed on as the SIGTERM that JAX's coordination service listens to.

  It ends with the weights of a run of one process.
  """
  config = [
    'tests/toy.py',
    f'--config=tests/toy.py:{toy.write_stacks(tmp_path / "data")}',
    '--config.steps=12',
    '--config.validation_every=6',
  ]
  config += ['--config.checkpoint_every=100', '--config.optimizer.learning_rate=1e-3']

  def begin(count=2):
    common = [*config, f'--workdir={tmp_path / "run"}', f'--coordinator={free_address()}', f'--num_processes={count}']
    return [start([*common, f'--process_id={index}'], 1) for index in range(count)]

  alone = start([*config, f'--workdir={tmp_path / "alone"}'], 2)
  _, error = alone.communicate(timeout=240)
  assert alone.returncode == 0, error
  processes = begin()
  metrics = tmp_path / 'run' / 'metrics.jsonl'
  while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
    assert all(process.poll() is None for process in processes), processes[0].stderr.read()
    time.sleep(0.02)
  processes[1].send_signal(signal.SIGINT)
  errors = [process.communicate(timeout=120)[1] for process in processes]
  assert [process.returncode for process in processes] == [128 + signal.SIGTERM, 128 + signal.SIGINT], errors
  assert 'stopped by SIGTERM after step' in errors[0]
  (checkpoint,) = (tmp_path / 'run' / 'checkpoints').iterdir()
  assert 2 < int(checkpoint.name) < 12

  processes = begin()
  errors = [process.communicate(timeout=240)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], errors
  lines = [json.loads(line) for line in metrics.read_text().splitlines()]
  assert [line['step'] for line in lines if 'loss' in line] == list(range(1, 13))
  validations = [
    [
      line
      for line in map(json.loads, (tmp_path / name / 'metrics.jsonl').read_text().splitlines())
      if 'loss' not in line
    ]
    for name in ('run', 'alone')
  ]
  assert [line['step'] for line in validations[0]] == [6, 12]
  for together, single in zip(*validations, strict=True):
    assert together == pytest.approx(single, abs=1e-4)
  both, one = (load_weights(tmp_path / name / 'weights.npz')[0] for name in ('run', 'alone'))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), both, one)


def test_arguments_of_processes():
  with pytest.raises(InputError, match=r"are \('localhost:1', None, 1\), expected all of them or none"):
    parallel.start_processes('localhost:1', None, 1)
  with pytest.raises(InputError, match="parallel is 'pmapp', expected one of pmap, shard_map"):
    parallel.Devices('pmapp')


@pytest.mark.parametrize('kind', parallel.KINDS)
def test_inputs_are_sent_two_ahead_and_come_in_order(kind):
  devices, asked = parallel.Devices(kind), []

  def source():
    for index in range(5):
      asked.append(index)
      yield {'x': np.full((devices.local_count, 3), index, np.uint8)}

  inputs = devices.ahead(source())
  for index in range(5):
    one = next(inputs)
    assert len(asked) == min(index + 2, 5)
    assert isinstance(one['x'], jax.Array)
    assert one['x'].sharding.device_set == set(jax.local_devices())
    np.testing.assert_array_equal(parallel.local_shares(one['x']), np.full((devices.local_count, 3), index))
  assert next(inputs, None) is None
