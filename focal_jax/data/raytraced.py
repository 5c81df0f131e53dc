"""Ray-traced scenes, from which the simulator records focal stacks: folders written by `tfds_ddff.raytraced`."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from focal_jax.errors import InputError, one_line

SUFFIX = '.npz'
FIELDS = ('light', 'focus', 'inverse_depth')


class RaytracedScenes(Sequence):
  """Random access to the scenes of a folder, in order of their names. `scenes[i]` is a dict:

    light          [S, P, H, W, 3] float16: linear light >= 0, about 1 for white, of S sweeps with P planes of focus
    focus          [S, P] float32: inverse distances, rising (far to near)
    inverse_depth  [H, W] float32: in the unit of `focus`; 0 where unknown
    name           name of the file without its suffix

  Raises:
    InputError: there is no such folder, or it holds no scenes. Errors in single files are raised when they are read.
  """

  def __init__(self, folder: Path):
    folder = folder.expanduser()
    self._paths = sorted(folder.glob('*' + SUFFIX)) if folder.is_dir() else []
    if not self._paths:
      raise InputError(f'{folder}: found no {SUFFIX} files, expected scenes written by python -m tfds_ddff.raytraced')

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> dict[str, Any]:
    path = self._paths[index]
    try:
      with np.load(path) as file:
        scene = {field: file[field] for field in FIELDS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
      raise InputError(f'{path}: cannot be read ({one_line(error)}), expected arrays {", ".join(FIELDS)}') from error
    light, focus, depth = (scene[field].shape for field in FIELDS)
    if len(light) != 5 or not light[0] or light[1] < 2 or light[-1] != 3 or (focus, depth) != (light[:2], light[2:4]):
      raise InputError(
        f'{path}: light {light}, focus {focus}, inverse_depth {depth}, expected (S, P, H, W, 3), (S, P), (H, W)'
      )
    return scene | {'name': path.stem}
