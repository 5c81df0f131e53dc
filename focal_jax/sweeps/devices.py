"""The devices for the runs of a sweep, listed without allocating them."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from focal_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Device:
  """A device for one run at a time; `environment` makes it the only one visible to a process."""

  name: str
  environment: dict[str, str]


def make_devices(kind: str, names: Sequence[str]) -> list[Device]:
  """Devices of a kind in JAX's terms: gpu, tpu or cpu (a single one)."""
  if kind == 'gpu':
    return [Device(f'GPU {name}', {'CUDA_VISIBLE_DEVICES': name}) for name in names]
  if kind == 'tpu':  # one chip a process, none of which knows of the others; not tried
    whole = {'TPU_CHIPS_PER_PROCESS_BOUNDS': '1,1,1', 'TPU_PROCESS_BOUNDS': '1,1,1'}
    ports = {name: str(8476 + index) for index, name in enumerate(names)}
    return [
      Device(
        f'TPU {name}',
        {
          **whole,
          'TPU_VISIBLE_CHIPS': name,
          'TPU_MESH_CONTROLLER_ADDRESS': f'localhost:{port}',
          'TPU_MESH_CONTROLLER_PORT': port,
        },
      )
      for name, port in ports.items()
    ]
  return [Device('CPU', {})]


_ASK = """
import json, jax
chips = {str(getattr(device, 'coords', device.id)) for device in jax.local_devices()}  # a TPU's may have two cores
print(json.dumps([jax.default_backend(), len(chips)]))
"""


def find_devices(chosen: Sequence[str] = ()) -> list[Device]:
  """The chosen GPUs or TPU chips, or all; otherwise the CPU.

  JAX is asked in a separate process, because this one would allocate the accelerators, and its runs would find none.

  Raises:
    InputError: JAX does not start, or the choice is invalid.
  """
  if len(set(chosen)) != len(chosen) or not all(chosen):
    raise InputError(f'--devices is {",".join(chosen)}, expected each device once')
  environment = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  answer = subprocess.run([sys.executable, '-c', _ASK], capture_output=True, text=True, check=False, env=environment)
  if answer.returncode:
    raise InputError(f'jax finds no devices: {last_line(answer.stderr)}')
  kind, count = json.loads(answer.stdout.splitlines()[-1])
  if kind == 'cpu' and chosen:
    raise InputError(f'--devices is {",".join(chosen)}, but jax finds no GPU or TPU here')
  visible = os.environ.get('CUDA_VISIBLE_DEVICES') if kind == 'gpu' else None
  names = [name.strip() for name in visible.split(',')][:count] if visible else [str(index) for index in range(count)]
  return make_devices(kind, chosen or names)


def last_line(text: str) -> str:
  return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), 'no message')
