"""Reads published files in the formats of the data sets, with errors that name the file.

Every function raises InputError with the file (and key), what was found and what was expected.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import OpenEXR
from PIL import Image

from focal_jax.errors import InputError, one_line

Size = tuple[int, int]  # height, width


@contextlib.contextmanager
def open_hdf5(path: Path, homepage: str) -> Iterator[h5py.File]:
  """Opens an HDF5 file (a MATLAB file of version 7.3 is one) for reading; it must exist and be complete."""
  if not path.is_file():
    raise InputError(f'{path}: found no such file, expected the one from {homepage}')
  try:
    file = h5py.File(path, 'r')
  except OSError as error:
    raise InputError(f'{path}: found a file that cannot be read ({one_line(error)}), expected HDF5') from error
  with file:
    yield file


def check_array(
  file: h5py.File, key: str, shape: tuple[int | str, ...], dtype: type[np.generic], why: str = ''
) -> tuple[int, ...]:
  """Checks an array of an HDF5 file; returns its shape.

  Args:
    file: the open file.
    key: name of the array.
    shape: expected shape; letters stand for any length except 0.
    dtype: a NumPy type, or an abstract one such as `np.floating`.
    why: reason for the expectation, appended to the message.
  """
  expected = f'({", ".join(map(str, shape))}) {dtype.__name__}{why}'
  array = file.get(key)
  if not isinstance(array, h5py.Dataset):
    raise InputError(f'{file.filename}: {key} is missing, found {", ".join(file) or "no keys"}, expected {expected}')
  lengths_fit = len(array.shape) == len(shape) and all(
    found > 0 if isinstance(wanted, str) else found == wanted for found, wanted in zip(array.shape, shape, strict=True)
  )
  if not lengths_fit or not np.issubdtype(array.dtype, dtype):
    raise InputError(f'{file.filename}: {key} is {array.shape} {array.dtype}, expected {expected}')
  return array.shape


def read_array(file: h5py.File, key: str, index: int) -> np.ndarray:
  """One element of the first axis of an array."""
  try:
    return file[key][index]
  except OSError as error:
    raise InputError(
      f'{file.filename}: found {key}[{index}] damaged ({one_line(error)}), expected an intact file'
    ) from error


def to_uint8(values: np.ndarray, source: str) -> np.ndarray:
  """Grey levels stored as floating-point numbers: exact if they are whole, otherwise rounded.

  Args:
    values: 0 .. 255.
    source: file and key, for the message.
  """
  low, high = values.min(), values.max()
  if not (low >= 0 and high <= 255):  # written so that NaN fails too
    raise InputError(f'{source}: values range from {low} to {high}, expected 0 to 255')
  return np.rint(values).astype(np.uint8)


def image_size(path: Path, homepage: str, modes: tuple[str, ...] = ('RGB',)) -> Size:
  """Height and width of an image file; only its header is read.

  Args:
    path: the file.
    homepage: where it is published, for the message.
    modes: expected pixel formats, by Pillow's names.
  """
  with _open_image(path, homepage) as image:
    if image.mode not in modes:
      raise InputError(f'{path}: found pixels of format {image.mode}, expected {" or ".join(modes)}')
    return image.height, image.width


def common_size(paths: Sequence[Path], homepage: str) -> Size:
  """Height and width of RGB images, which must all have the same size; only headers are read."""
  size = image_size(paths[0], homepage)
  for path in paths[1:]:
    check_same_size(path, image_size(path, homepage), size, paths[0])
  return size


def read_image(path: Path, homepage: str) -> np.ndarray:
  """Pixels of an image file as they are stored: [H, W, 3] for RGB, [H, W] for grey."""
  with _open_image(path, homepage) as image:
    try:
      return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
      raise InputError(f'{path}: found a damaged image ({one_line(error)}), expected an intact one') from error


@contextlib.contextmanager
def _open_image(path: Path, homepage: str) -> Iterator[Image.Image]:
  if not path.is_file():
    raise InputError(f'{path}: found no such file, expected the one from {homepage}')
  try:
    image = Image.open(path)
  except (OSError, SyntaxError, ValueError) as error:
    raise InputError(f'{path}: found a file that cannot be read ({one_line(error)}), expected an image') from error
  with image:
    yield image


def exr_size(path: Path, homepage: str) -> Size:
  """Height and width of an OpenEXR file; only its header is read."""
  low, high = _open_exr(path, homepage, header_only=True).header()['dataWindow']
  width, height = high - low + 1
  return int(height), int(width)


def exr_channels(path: Path, homepage: str) -> list[str]:
  """Names of the channels of an OpenEXR file, sorted; only the header is read."""
  return sorted(channel.name for channel in _open_exr(path, homepage, header_only=True).header()['channels'])


def read_exr(path: Path, homepage: str) -> dict[str, np.ndarray]:
  """[H, W] float16, float32 or uint32 for each channel of an OpenEXR file, in the order of the file: by name."""
  file = _open_exr(path, homepage)
  if not file.parts:  # the library only prints a warning
    raise InputError(f'{path}: found a damaged OpenEXR file, expected an intact one')
  channels = file.channels()
  return {name: channels[name].pixels for name in sorted(channels)}


def _open_exr(path: Path, homepage: str, header_only: bool = False) -> OpenEXR.File:
  if not path.is_file():
    raise InputError(f'{path}: found no such file, expected the one from {homepage}')
  try:
    return OpenEXR.File(str(path), separate_channels=True, header_only=header_only)
  except RuntimeError as error:
    raise InputError(f'{path}: found a file that cannot be read ({one_line(error)}), expected OpenEXR') from error


def subfolders(folder: Path, homepage: str) -> list[Path]:
  """The folders in a folder, sorted by name, except hidden ones. There must be at least one."""
  if not folder.is_dir():
    raise InputError(f'{folder}: found no such folder, expected the one from {homepage}')
  found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))
  if not found:
    raise InputError(f'{folder}: found no folders, expected one for each scene')
  return found


def check_same_size(path: Path, size: Size, expected: Size, like: Path) -> None:
  """Raises InputError unless an image has the same size as another one."""
  if size != expected:
    raise InputError(f'{path}: is {size[0]} x {size[1]} pixels, expected {expected[0]} x {expected[1]} as {like}')
