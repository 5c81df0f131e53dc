"""Differences between the parameters after training steps on several devices and on one.

  python -m benchmarks.devices
  python -m benchmarks.devices --networks=both

One global batch of four stacks is shared equally among the devices. Plain SGD is used, because unlike Adam it reveals
gradients of the wrong scale; batch normalisation covers all devices. More steps show how the network amplifies
rounding. The CPU emulates four devices; two processes with two devices each communicate over loopback. The tests check
the same for a small network; this is the full one, so compilation takes a minute per row.
"""

import os
import socket
import subprocess
import sys
import tempfile

from absl import app, flags

_NETWORKS = flags.DEFINE_enum('networks', 'depth', ('both', 'depth', 'alignment'), 'What is trained.')
_STEPS = flags.DEFINE_integer('steps', 1, 'Number of training steps.')
_ROLE = flags.DEFINE_string('role', '', 'Internal: the role of a child process.')
_OUT = flags.DEFINE_string('out', '', 'Internal: result file of a child process.')

CASES = [('pmap', 1), ('pmap', 2), ('pmap', 4), ('shard_map', 4)]
_RATE = 0.01


def parameters_after(kind: str, count: int | None):
  """All parameters as one vector after the steps on `count` devices; None: all devices."""
  import jax
  import numpy as np
  import optax

  from focal_jax.losses import LossSettings
  from focal_jax.models.end_to_end import init_variables
  from focal_jax.models.registry import make_model
  from focal_jax.stack import FocalStack
  from focal_jax.training import parallel
  from focal_jax.training.step import StepSettings, init_state, make_train_step

  rng, size, frames, side = np.random.default_rng(0), 4, 3, 64
  stack = FocalStack(
    images=rng.random((size, frames, side, side, 3)).astype(np.float32),
    focus=np.tile(np.linspace(0, 1, frames, dtype=np.float32), (size, 1)),
    fov=np.tile(np.linspace(1.04, 1, frames, dtype=np.float32), (size, 1)),
    target=rng.random((size, side, side)).astype(np.float32),
    valid=(rng.random((size, side, side)) < np.array([0.1, 0.4, 0.7, 1.0])[:, None, None]).astype(np.float32),
    motion=rng.normal(size=(size, frames, 3)).astype(np.float32) * np.array([0.01, 1, 1], np.float32),
  )
  devices = parallel.Devices(kind, jax.devices()[:count] if count else None)
  model, tx = make_model({}, axis_name=parallel.AXIS), optax.sgd(_RATE)
  settings = StepSettings(_NETWORKS.value, LossSettings())
  state = devices.replicate(init_state(init_variables(model, 0), tx, settings, 0))
  step = devices.run(
    make_train_step(model, tx, lambda keys, stack: stack, settings), outputs=(False, False), training=True
  )
  hosts = jax.process_count()
  index = np.arange(size, dtype=np.int32)[jax.process_index() :: hosts].reshape(devices.local_count, -1)
  for _ in range(_STEPS.value):
    state, _ = step(state, devices.share((index, jax.tree.map(lambda x: x[index], stack))))
    jax.block_until_ready(state)
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(state.params))])


def as_role(role: str) -> None:
  """Runs a child process: 'devices', or 'process KIND ADDRESS INDEX'. The first process writes the results."""
  import jax
  import numpy as np

  from focal_jax.training import parallel

  name, *arguments = role.split()
  if name == 'process':
    kind, address, index = arguments
    parallel.start_processes(address, 2, int(index))
    vectors = [parameters_after(kind, None)]
  else:
    vectors = [parameters_after(*case) for case in CASES]
  if jax.process_index() == 0:
    np.save(_OUT.value, np.stack(vectors))


def run(roles: list[str], devices: int):
  """Starts the processes, each with this number of devices; returns the first one's results."""
  import numpy as np

  xla = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  with tempfile.TemporaryDirectory() as folder:
    out = f'{folder}/vectors.npy'
    command = [sys.executable, '-m', 'benchmarks.devices', f'--out={out}']
    command += [f'--networks={_NETWORKS.value}', f'--steps={_STEPS.value}']
    processes = [subprocess.Popen([*command, f'--role={role}'], env=os.environ | {'XLA_FLAGS': xla}) for role in roles]
    statuses = [process.wait() for process in processes]
    if any(statuses):
      sys.exit('a process failed, see above')
    return np.load(out)


def main(argv: list[str]) -> None:
  del argv
  if _ROLE.value:
    as_role(_ROLE.value)
    return
  import numpy as np

  names = [f'{kind}, {count} device{"s" * (count > 1)}' for kind, count in CASES]
  found = dict(zip(names, run(['devices'], 4), strict=True))
  for kind in ('pmap', 'shard_map'):
    with socket.socket() as listener:
      listener.bind(('localhost', 0))
      address = f'localhost:{listener.getsockname()[1]}'
    (found[f'{kind}, 2 processes of 2 devices'],) = run([f'process {kind} {address} {index}' for index in range(2)], 2)
  alone = found['pmap, 1 device']
  print(f"networks '{_NETWORKS.value}', {len(alone):,} parameters, {_STEPS.value} step(s) of SGD at {_RATE}\n")
  print('| | largest difference to one device | mean |\n| --- | ---: | ---: |')
  for name, vector in found.items():
    difference = np.abs(vector - alone)
    print(f'| {name} | {difference.max():.1e} | {difference.mean():.1e} |')


if __name__ == '__main__':
  app.run(main)
