"""Weights and outputs of published networks: every entry of a state dict follows from its name and a formula."""

import json
import zlib
from pathlib import Path

import numpy as np
import test_torch_file as archive


def state_dict(path: Path) -> dict[str, np.ndarray]:
  """The entries that a fixture's .json lists, checked by the sum that it holds."""
  fixture = json.loads(path.read_text())
  tensors = {entry['name']: _entry(**entry) for entry in fixture['entries']}
  total = sum(np.abs(tensor.astype(np.float64)).sum() for tensor in tensors.values())
  np.testing.assert_allclose(total, fixture['abs_sum_of_all_entries'], rtol=1e-9)
  return tensors


def _entry(name, shape, kind, fan_in=0, gain=1.0, **_) -> np.ndarray:
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  match kind:
    case 'weight':
      value = rng.standard_normal(shape) * gain * np.sqrt(2 / fan_in)
    case 'bias':
      value = 0.05 * rng.standard_normal(shape)
    case 'scale' | 'var':
      value = 0.75 + 0.5 * rng.random(shape)
    case 'shift' | 'mean':
      value = 0.1 * rng.standard_normal(shape)
  return value.astype(np.float32)


def arrays(path: Path) -> dict[str, np.ndarray]:
  """A fixture's input and expected outputs as ours are: frames far to near, channels last, no axis for one channel.

  Returns:
    'stack' [B, N, H, W, 3] RGB 0 .. 1 and 'focus' [B, N]; all else as its .json says, frames in the same order.
  """
  with np.load(path) as file:
    found = dict(file)
  frames = found['focus'].shape[1]
  for name, array in found.items():
    if array.ndim > 1 and array.shape[1] == frames:
      array = array[:, ::-1]
    if array.ndim > 3 and array.shape[-3] == 3:
      array = np.moveaxis(array, -3, -1)
    found[name] = array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array
  return found


def write_pth(path: Path, tensors: dict[str, np.ndarray]) -> Path:
  """A state dict as PyTorch saves it."""
  entries = {
    name: archive.tensor(value.shape, size=value.size, key=str(key))
    for key, (name, value) in enumerate(tensors.items())
  }
  storages = {str(key): value.astype('<f4').tobytes() for key, value in enumerate(tensors.values())}
  return archive.write(path, archive.mapping(entries), storages)
