"""TIFF files of several pages: the stacks of microscopes, with what OME-XML or ImageJ wrote about them."""

import contextlib
import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from focal_jax.data import tiff
from focal_jax.data.decode import FrameFile, decode, naming, open_page, read_header
from focal_jax.data.names import shown
from focal_jax.errors import InputError

TIFF_SUFFIXES = ('.tif', '.tiff')
_REDUCED = 1  # bit of tiff.SUBFILE: the page is a preview of another
_CHANNEL_SIDE_PX = 256  # at which channels are compared
_MOST_CHANNELS = 4  # that ImageJ's are believed to be, where it knows neither positions nor times
_MICRONS = ('µm', 'μm', 'um', 'micron', 'microns', 'micrometer', 'micrometers', 'micrometre', 'micrometres')


@dataclasses.dataclass(frozen=True, eq=False)
class PageStack:
  """A stack in the pages of one file.

  Attributes:
    files: the pages, of one channel and one time, in their order along the axis.
    positions: of each along the axis. None: not known.
    unit: of `positions`.
    source: where they were found.
    channel: which of the channels it is, counted from 0.
    channels: how many there are.
    notes: remarks for the user, one sentence each.
  """

  files: list[FrameFile]
  positions: Float64[np.ndarray, 'N'] | None
  unit: str
  source: str
  channel: int
  channels: int
  notes: list[str]


@dataclasses.dataclass
class _Layout:
  """Pages by [time, position, channel], and what is known about the positions."""

  pages: np.ndarray
  positions: Float64[np.ndarray, 'Z'] | None = None
  unit: str = ''
  source: str = ''


def read_page_stack(path: Path, channel: int | None = None) -> PageStack | None:
  """The stack in a TIFF; None if the file is another picture, with previews or without.

  Args:
    path: of the file.
    channel: to take, counted from 0. None: the one whose structure stands out most from its noise.

  Raises:
    InputError: the file cannot be read, or has no such channel.
  """
  if path.suffix.lower() not in TIFF_SUFFIXES:
    return None
  with naming(path):
    with path.open('rb') as file:
      start = file.read(4)
    if not tiff.is_tiff(start):  # another kind of picture under that name, or none
      with open_page(path):
        return None
    found = tiff.read_pages(path)
    pages = [
      n for n, page in enumerate(found) if page.size == found[0].size and not int(page.get(tiff.SUBFILE, 0)) & _REDUCED
    ]
  if len(pages) < 2:
    return None
  layout = _layout(found[0].description, pages)
  times, depths, channels = layout.pages.shape
  notes = []
  if depths < 2:
    if times < 2:
      return None  # channels of one picture
    layout = _Layout(np.swapaxes(layout.pages, 0, 1))
    notes.append(f'{shown(path.name)} has times and one position: the times were taken as the stack.')
  elif times > 1:
    notes.append(f'Of the {times} times in {shown(path.name)} the first was read.')
  if channel is not None and not 0 <= channel < channels:
    raise InputError(f'channel is {channel}, expected 0 .. {channels - 1}, the channels of {shown(path)}')
  by_channel = [_page_files(path, layout.pages[0, :, c].tolist()) for c in range(channels)]
  chosen = channel
  if channels > 1:
    chosen = clearest(by_channel) if channel is None else channel
    notes.append(f'Of the {channels} channels in {shown(path.name)} depth is from channel {chosen} (counted from 0).')
  return PageStack(by_channel[chosen or 0], layout.positions, layout.unit, layout.source, chosen or 0, channels, notes)


def clearest(stacks: list[list[FrameFile]]) -> int:
  """The stack whose structure stands out most from its noise, by its middle frame."""
  return int(np.argmax([_clearness(files[len(files) // 2]) for files in stacks]))


def _clearness(file: FrameFile) -> float:
  pixels = decode(read_header(file), 1).pixels
  grey = pixels if isinstance(pixels, np.ndarray) else np.asarray(pixels.convert('L'))
  grey = np.nan_to_num(grey.reshape(*grey.shape[:2], -1)[..., 0].astype(np.float64), posinf=0, neginf=0)
  noise = np.median(np.abs(grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2])) + 1e-3 * (np.ptp(grey) + 1)
  step = max(2, max(grey.shape) // _CHANNEL_SIDE_PX)
  rows, columns = (n // step * step for n in grey.shape)
  means = grey[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
  return float(means.std() / noise)


def _page_files(path: Path, pages: list[int]) -> list[FrameFile]:
  digits = max(3, len(str(max(pages))))
  stem, suffix = shown(path.stem), shown(path.suffix)
  return [FrameFile(path, f'{stem}_{page:0{digits}}{suffix}', page, alone=False) for page in pages]


def _layout(description: str, pages: list[int]) -> _Layout:
  layout = None
  if '<OME' in description[:2000]:
    # Other programs' XML may be anything; then the pages stand for themselves.
    with contextlib.suppress(ElementTree.ParseError, ValueError, KeyError, TypeError, IndexError):
      layout = _ome_layout(description, pages)
  elif description.startswith('ImageJ='):
    with contextlib.suppress(ValueError):
      layout = _imagej_layout(description, pages)
  return layout or _Layout(np.array(pages)[None, :, None])


def _ome_layout(description: str, pages: list[int]) -> _Layout | None:
  for element in (root := ElementTree.fromstring(description.strip('\0 \n').encode())).iter():
    element.tag = element.tag.rpartition('}')[2]  # The name space tells the version, in which nothing here differs.
  pixels = next(root.iter('Pixels'))
  channels = list(pixels.iter('Channel'))
  samples = int(channels[0].get('SamplesPerPixel', 1)) if channels else 1
  sizes = {axis: int(pixels.get(f'Size{axis}', 1)) for axis in 'ZCT'}
  sizes['C'] = max(1, sizes['C'] // samples)
  if np.prod(list(sizes.values())) != len(pages):
    return None
  fastest_first = [axis for axis in pixels.get('DimensionOrder', 'XYZCT').upper() if axis in sizes]
  by_page = np.array(pages).reshape([sizes[axis] for axis in reversed(fastest_first)])
  layout = by_page.transpose([list(reversed(fastest_first)).index(axis) for axis in 'TZC']).copy()
  for data in pixels.iter('TiffData'):
    if int(data.get('PlaneCount', 1)) == 1 and data.get('IFD') is not None and data.get('FirstZ') is not None:
      place = tuple(int(data.get(f'First{axis}', 0)) for axis in 'TZC')
      layout[place] = pages[int(data.get('IFD'))]
  positions, unit = np.full(sizes['Z'], np.nan), 'um'
  for plane in pixels.iter('Plane'):
    z = plane.get('PositionZ')
    if z is not None and int(plane.get('TheT', 0)) == 0 and np.isnan(positions[int(plane.get('TheZ', 0))]):
      positions[int(plane.get('TheZ', 0))] = float(z)
      unit = plane.get('PositionZUnit', 'reference frame')
  if np.isfinite(positions).all() and len(np.unique(positions)) == len(positions):
    return _Layout(layout, *_unit_of_length(positions, unit), 'PositionZ in OME-XML')
  if spacing := float(pixels.get('PhysicalSizeZ', 0)):
    positions, unit = _unit_of_length(np.arange(sizes['Z']) * spacing, pixels.get('PhysicalSizeZUnit', 'µm'))
    return _Layout(layout, positions, unit, 'PhysicalSizeZ in OME-XML')
  return _Layout(layout)


def _imagej_layout(description: str, pages: list[int]) -> _Layout | None:
  fields = dict(line.split('=', 1) for line in description.splitlines() if '=' in line)
  channels, depths, times = (int(fields.get(field, 1)) for field in ('channels', 'slices', 'frames'))
  if channels * depths * times == 1:  # A plain stack may say 'images' alone.
    depths = len(pages)
  elif depths * times == 1 and channels > _MOST_CHANNELS:  # Some programs write any stack so.
    depths, channels = channels, 1
  if channels * depths * times != len(pages):
    return None
  layout = np.array(pages).reshape(times, depths, channels)
  unit = re.sub(r'\\u([0-9a-fA-F]{4})', lambda code: chr(int(code[1], 16)), fields.get('unit', '')).strip('"')
  spacing = float(fields.get('spacing', 0))
  if not spacing or unit.lower() in ('', 'pixel', 'pixels', 'null'):
    return _Layout(layout)
  positions, unit = _unit_of_length((np.arange(depths) - float(fields.get('zorigin', 0))) * spacing, unit)
  return _Layout(layout, positions, unit, "ImageJ's spacing")


def _unit_of_length(positions: Float64[np.ndarray, 'Z'], unit: str) -> tuple[Float64[np.ndarray, 'Z'], str]:
  """Micrometres by one name; metres become those, for they would be taken for distances from a camera."""
  if unit.lower() in _MICRONS:
    return positions, 'um'
  return (positions * 1e6, 'um') if unit == 'm' else (positions, unit)
