"""Focal stacks that the authors of AiFDepthNet made from stereo data sets: FlyingThings3D_FS and Middlebury_FS.

Each scene is a folder with 15 frames focused at planes evenly spaced in disparity and named by it in pixels
(`10.0.png`); `AiF.png`, the all-in-focus image; and `disp.exr`, the disparity in pixels in its only channel, whatever
its name.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from focal_jax.errors import InputError
from tfds_ddff.files import check_same_size, common_size, exr_channels, exr_size, read_exr, read_image, subfolders
from tfds_ddff.stack_builder import Example, SourceSplit, make_example, stack_bytes

NUM_FRAMES = 15
ALL_IN_FOCUS, DISPARITY = 'AiF.png', 'disp.exr'
HOMEPAGE = 'https://github.com/albert100121/AiFDepthNet'
ROUNDING_PX = 0.05  # maximum distance of the number in a file name from its plane

CITATION = """
@inproceedings{wang2021bridging,
  title = {Bridging Unsupervised and Supervised Depth from Focus via All-in-Focus Supervision},
  author = {Wang, Ning-Hsu and Wang, Ren and Liu, Yu-Lun and Huang, Yu-Hao and Chang, Yu-Lin and
            Chen, Chia-Ping and Jou, Kevin},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  year = {2021},
}
"""


def focus_planes(far_px: float, near_px: float) -> np.ndarray:
  """[15] disparity of each frame, far to near."""
  return np.linspace(far_px, near_px, NUM_FRAMES)


@dataclasses.dataclass(frozen=True)
class _Scene:
  name: str
  frames: list[Path]  # far to near
  all_in_focus: Path
  disparity: Path
  num_bytes: int


def find_split(
  folder: Path, planes: np.ndarray, is_valid: Callable[[np.ndarray], np.ndarray], prefix: str = ''
) -> SourceSplit:
  """The scenes of a folder, by name.

  Args:
    folder: contains one folder per scene.
    planes: [15] disparity of each frame, px, far to near.
    is_valid: which disparities are valid; values that are not finite never are.
    prefix: prefix of example names, before that of the scene.

  Raises:
    InputError: there are no scenes, or one lacks a file, has an extra PNG, or is not laid out as described above.
  """
  scenes = [_check_scene(path, planes, prefix) for path in subfolders(folder, HOMEPAGE)]
  return SourceSplit(
    len(scenes), sum(scene.num_bytes for scene in scenes), functools.partial(_read, scenes, planes, is_valid)
  )


def _check_scene(folder: Path, planes: np.ndarray, prefix: str) -> _Scene:
  frames = _find_frames(folder, planes)
  all_in_focus, disparity = folder / ALL_IN_FOCUS, folder / DISPARITY
  size = common_size([*frames, all_in_focus], HOMEPAGE)
  check_same_size(disparity, exr_size(disparity, HOMEPAGE), size, frames[0])
  channels = exr_channels(disparity, HOMEPAGE)
  if len(channels) != 1:
    raise InputError(f'{disparity}: found channels {", ".join(channels)}, expected one')
  num_bytes = stack_bytes(NUM_FRAMES, *size, all_in_focus=True)
  return _Scene(prefix + folder.name, frames, all_in_focus, disparity, num_bytes)


def _find_frames(folder: Path, planes: np.ndarray) -> list[Path]:
  """The frame of each plane, far to near; any other PNG except the all-in-focus image is an error."""
  frames = {}
  for path in sorted(folder.glob('*.png')):
    if path.name == ALL_IN_FOCUS:
      continue
    try:
      distance = np.abs(planes - float(path.stem))
    except ValueError:
      raise InputError(f'{path}: found a stray file, expected {ALL_IN_FOCUS} or the disparity of a frame') from None
    nearest = int(np.argmin(distance))
    if not distance[nearest] <= ROUNDING_PX:  # written so that NaN fails too
      raise InputError(f'{path}: found a frame at {path.stem} px, expected {planes[nearest]:.2f} px')
    if nearest in frames:
      raise InputError(f'{path}: found a second frame at {planes[nearest]:.2f} px, expected only {frames[nearest]}')
    frames[nearest] = path
  for n, plane in enumerate(planes):
    if n not in frames:
      raise InputError(f'{folder}/{plane:.1f}.png: found no such file, expected the one from {HOMEPAGE}')
  return [frames[n] for n in range(NUM_FRAMES)]


def _read(
  scenes: list[_Scene], planes: np.ndarray, is_valid: Callable[[np.ndarray], np.ndarray], index: int
) -> Example:
  scene = scenes[index]
  (disparity,) = read_exr(scene.disparity, HOMEPAGE).values()
  return make_example(
    scene.name,
    np.stack([read_image(path, HOMEPAGE) for path in scene.frames]),
    planes,
    disparity,
    is_valid(disparity),
    all_in_focus=read_image(scene.all_in_focus, HOMEPAGE),
  )
