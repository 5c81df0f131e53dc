"""RGB-D photographs with metric depth, from which the simulator makes focal stacks: built data sets, or folders.

All are read by random access. A folder has one of four layouts:

  frame-000000.color.jpg, frame-000000.depth.png, ...   pairs by name, as in 7-Scenes
  rgb.png, depth.png                                    one pair
  rgb.npy, depth.npy                                    one pair: uint8 or floats 0 .. 1, and floats in metres
  rgb/, depth/                                          pairs by the last number in their names, or by order if a name
                                                        has no number

Colour is .jpg, .jpeg or .png with 8 bits; depth is .png with 16 bits in mm, where 0 and 65535 mean unknown. In float
arrays, values that are not finite or not above 0 mean unknown. Nothing is written.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

import tfds_ddff
from focal_jax.errors import InputError, one_line

NO_DEPTH_MM = 65535
COLOUR, DEPTH = r'\.(jpg|jpeg|png)', r'\.png'  # suffixes
LAYOUTS = '*.color.jpg and *.depth.png, rgb.png and depth.png, rgb.npy and depth.npy, or rgb/ and depth/'


def open_rgbd(name: str, data_dir: str, split: str = 'train') -> Sequence[Any]:
  """Opens a source of RGB-D photographs. `source[i]` is a dict:

    rgb      [H, W, 3] uint8
    depth_m  [H, W] float32, metres along the optical axis, 0 where unknown
    name     name of the example: its colour file or folder, or the data set's own name for it

  Args:
    name: a data set built by `tfds_ddff` whose stacks have one frame, such as 'nyu_depth', or 'folder:DIR'.
    data_dir: folder of the built data sets.
    split: any TFDS expression; ignored for a folder.

  Raises:
    InputError: there is no such data set or folder, or it does not hold RGB-D photographs. Errors in single files are
      raised when they are read.
  """
  if name.startswith('folder:'):
    return FolderRgbd(Path(name.removeprefix('folder:')))
  return BuiltRgbd(name, split, data_dir)


class BuiltRgbd(Sequence):
  """A built data set of single frames, whose target is depth in metres."""

  def __init__(self, name: str, split: str, data_dir: str):
    self._source = tfds_ddff.load(name, split, data_dir)
    frames = len(self._source[0]['images'])
    if frames != 1 or self._source.focus_unit != 'm':
      raise InputError(
        f'data set {name!r}: found stacks of {frames} frames with depth in {self._source.focus_unit}, '
        'expected single frames with depth in m, as nyu_depth has'
      )

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = self._source[index]
    depth = np.where(example['valid'] > 0, example['target'], np.float32(0))
    return {'rgb': example['images'][0], 'depth_m': depth, 'name': example['name'].decode()}


class FolderRgbd(Sequence):
  """A folder in one of the layouts above; pairs in order of their names or numbers."""

  def __init__(self, folder: Path):
    self._pairs = _find_pairs(folder.expanduser())

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict[str, Any]:
    colour, depth = self._pairs[index]
    if colour.suffix == '.npy':
      rgb, depth_m = _colour_of_array(colour), _depth_of_array(depth)
    else:
      rgb, depth_m = read_colour(colour), _read_depth(depth)
    if rgb.shape[:2] != depth_m.shape:
      raise InputError(f'{depth}: is {depth_m.shape} (height, width), expected {rgb.shape[:2]} as {colour.name}')
    name = colour.absolute().parent.name if colour.stem == 'rgb' else colour.stem.removesuffix('.color')
    return {'rgb': rgb, 'depth_m': depth_m, 'name': name}


def fit_to_canvas(
  rgb: UInt8[np.ndarray, 'h w 3'], depth_m: Float32[np.ndarray, 'h w'], height: int, width: int
) -> tuple[UInt8[np.ndarray, '{height} {width} 3'], Float32[np.ndarray, '{height} {width}']]:
  """The centre of an RGB-D photograph, scaled so that it just covers the canvas.

  Colour is resampled with the Lanczos kernel. Depth takes the nearest pixel, because interpolating across edges and
  holes would create false surfaces.

  Args:
    rgb: the image.
    depth_m: its depth, m; 0 where unknown.
    height, width: size of the canvas, px.
  """
  h, w = depth_m.shape
  # One margin is exactly 0, so that rounding cannot push the box beyond the border.
  left = max(0.0, (w - h * width / height) / 2)
  top = max(0.0, (h - w * height / width) / 2)
  box = (left, top, w - left, h - top)
  size = (width, height)
  colour = Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS, box)
  return np.asarray(colour), np.asarray(Image.fromarray(depth_m).resize(size, Image.Resampling.NEAREST, box))


def _find_pairs(folder: Path) -> list[tuple[Path, Path]]:
  """Colour and depth file of each pair, in order."""
  if not folder.is_dir():
    raise InputError(f'{folder}: found no such folder, expected one with {LAYOUTS}')
  layouts = (
    (_files(folder, r'.+\.color' + COLOUR), _files(folder, r'.+\.depth' + DEPTH), _prefix),
    (_files(folder, r'rgb\.png'), _files(folder, r'depth\.png'), _nothing),
    (_files(folder, r'rgb\.npy'), _files(folder, r'depth\.npy'), _nothing),
    (_files(folder / 'rgb', '.+' + COLOUR), _files(folder / 'depth', '.+' + DEPTH), _last_number),
  )
  found = [layout for layout in layouts if layout[0] or layout[1]]
  if len(found) != 1:
    what = ' and '.join((colours + depths)[0].name for colours, depths, _ in found) or 'no such files'
    raise InputError(f'{folder}: found {what}, expected one of: {LAYOUTS}')
  colours, depths, key = found[0]
  if any(key(path) is None for path in colours + depths):
    key = {path: n for paths in (colours, depths) for n, path in enumerate(paths)}.get
  return _pair(colours, depths, key)


def _pair(colours: list[Path], depths: list[Path], key) -> list[tuple[Path, Path]]:
  """Pairs of files with equal keys, sorted by key; every key must have exactly two."""
  pairs = {}
  for kind, paths in enumerate((colours, depths)):
    for path in paths:
      pair = pairs.setdefault(key(path), [None, None])
      if pair[kind]:
        raise InputError(f'{path}: found the same name or number as {pair[kind].name}, expected a different one')
      pair[kind] = path
  for colour, depth in pairs.values():
    if not (colour and depth):
      missing = 'depth' if colour else 'colour'
      raise InputError(
        f'{colour or depth}: found no {missing} image to match it, expected pairs '
        f'({len(colours)} colour and {len(depths)} depth images)'
      )
  return [tuple(pairs[k]) for k in sorted(pairs)]


def _files(folder: Path, pattern: str) -> list[Path]:
  """Files whose whole name matches, ignoring case, sorted; [] if there is no folder. Hidden files are ignored."""
  paths = folder.iterdir() if folder.is_dir() else ()
  fits = re.compile(pattern, re.IGNORECASE).fullmatch
  return sorted(path for path in paths if fits(path.name) and not path.name.startswith('.') and path.is_file())


# What the two files of a pair share.


def _prefix(path: Path) -> str:
  return path.name.rsplit('.', 2)[0]


def _nothing(path: Path) -> str:
  return ''


def _last_number(path: Path) -> int | None:
  numbers = re.findall(r'\d+', path.stem)
  return int(numbers[-1]) if numbers else None


def read_colour(path: Path) -> UInt8[np.ndarray, 'H W 3']:
  """Reads an 8-bit image; InputError naming the file for anything else."""
  image = _read_image(path)
  if image.mode.startswith(('I', 'F')):
    raise InputError(f'{path}: has pixels of kind {image.mode}, expected colour of 8 bits')
  return np.asarray(image.convert('RGB'))


def _read_depth(path: Path) -> Float32[np.ndarray, 'H W']:
  image = _read_image(path)
  # Pillow's mode for 16 bits is I;16 or, in older versions, I.
  values = np.asarray(image)
  if not image.mode.startswith('I') or values.min() < 0 or values.max() > NO_DEPTH_MM:
    raise InputError(f'{path}: has pixels of kind {image.mode}, expected depth in mm of 16 bits')
  return np.where(values == NO_DEPTH_MM, 0, values).astype(np.float32) / 1000


def _read_image(path: Path) -> Image.Image:
  try:
    with Image.open(path) as image:
      image.load()
      return image
  except Exception as error:  # decoders raise nearly anything on damaged files
    raise InputError(f'{path}: cannot be read ({one_line(error)}), expected an image') from error


def _colour_of_array(path: Path) -> UInt8[np.ndarray, 'H W 3']:
  rgb = _read_array(path)
  if rgb.ndim == 3 and rgb.shape[-1] == 3 and rgb.size:
    if rgb.dtype == np.uint8:
      return rgb
    if np.issubdtype(rgb.dtype, np.floating) and rgb.min() >= 0 and rgb.max() <= 1:
      return np.round(rgb * 255).astype(np.uint8)
  limits = f' from {rgb.min()} to {rgb.max()}' if rgb.size and np.issubdtype(rgb.dtype, np.number) else ''
  raise InputError(f'{path}: is {rgb.shape} {rgb.dtype}{limits}, expected (H, W, 3) uint8 or floating-point 0 .. 1')


def _depth_of_array(path: Path) -> Float32[np.ndarray, 'H W']:
  depth = _read_array(path)
  if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
    raise InputError(f'{path}: is {depth.shape} {depth.dtype}, expected (H, W) floating-point, in metres')
  return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _read_array(path: Path) -> np.ndarray:
  try:
    return np.load(path)
  except Exception as error:  # a damaged file can break whatever reads it
    raise InputError(f'{path}: cannot be read ({one_line(error)}), expected an array') from error
