"""Stacks in a single file: multi-page TIFFs, as written by microscopes, with their OME-XML or ImageJ metadata, and
animations (GIF, APNG, WebP, AVIF, HEIC). Also OME-TIFFs of several files, whose XML lists the planes in each file.
"""

import contextlib
import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from focal_jax.data import tiff
from focal_jax.data.decode import decode
from focal_jax.data.formats import HEIC_SUFFIXES, TIFF_SUFFIXES
from focal_jax.data.header import FrameFile, errors_naming_file, open_page, read_header
from focal_jax.data.names import comparable, format_list, printable
from focal_jax.data.units import plain_number, usual_unit
from focal_jax.data.unreadable import UnreadableError
from focal_jax.errors import InputError

_ANIMATED_SUFFIXES = ('.gif', '.png', '.webp', '.avif', *HEIC_SUFFIXES)
_CHANNEL_SIDE_PX = 256  # size at which channels are compared
_MAX_CHANNELS = 4  # files with more channels, but one position and time, are stacks: some programs write all like this
_MAX_PREVIEW = 0.6  # maximum size of previews relative to the image; in pyramids it is 1/2


@dataclasses.dataclass(frozen=True, eq=False)
class PageStack:
  """A stack in the pages of a file.

  Attributes:
    files: the pages of one channel and one time, in their order along the axis.
    positions: of each page along the axis. None: unknown.
    unit: of `positions`.
    source: where the positions were found; without positions, where those were found that cannot be used, or ''.
    channel: index of the channel, from 0.
    channels: number of channels.
    notes: notes for the user, one sentence each.
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
  """Pages by [time, position, channel], and their positions."""

  pages: np.ndarray
  positions: Float64[np.ndarray, 'Z'] | None = None
  unit: str = ''
  source: str = ''
  images: int = 1  # number of images in the file, of which only the first is used


def read_page_stack(path: Path, channel: int | None = None) -> PageStack | None:
  """The stack in a TIFF or an animation; None if the file is a single image, with or without previews.

  Args:
    path: the file.
    channel: index of the channel to use, from 0. None: the one with the highest ratio of structure to noise.

  Raises:
    InputError: the file cannot be read, or has no such channel.
  """
  if path.suffix.lower() in _ANIMATED_SUFFIXES:
    return _read_animation(path)
  if path.suffix.lower() not in TIFF_SUFFIXES:
    return None
  with errors_naming_file(path):
    if not tiff.is_tiff(path):  # not a TIFF, whatever its name
      with open_page(path):
        return None
    found = tiff.read_pages(path)
    pages = tiff.pictures(found)
    is_cut = tiff.is_truncated(path)
  if len(pages) < 2:
    return None
  layout = _layout(found[0].description or found[pages[0]].description, pages, path.name)
  times, depths, channels = layout.pages.shape
  notes = [f'{printable(path.name)} is truncated: {len(pages)} of its pages were read.'] if is_cut else []
  size = found[pages[0]].size
  odd = sum(
    page.size != size and all(a > _MAX_PREVIEW * b for a, b in zip(page.size, size, strict=True)) for page in found
  )
  if odd:
    was = 'page of another size was' if odd == 1 else 'pages of other sizes were'
    notes.append(f'{odd} {was} not read in {printable(path.name)}; the others are {size[0]} x {size[1]} pixels.')
  if layout.positions is None and layout.source:
    notes.append(f'{layout.source} was ignored: it is not another number in each plane.')
  if layout.images > 1:
    notes.append(f'Only the first of the {layout.images} images in {printable(path.name)} was read.')
  if depths < 2:
    if times < 2 and channels <= _MAX_CHANNELS:
      return None  # channels of one image
    axis, what = (0, 'times') if times > 1 else (2, 'channels')
    layout = _Layout(np.swapaxes(layout.pages, axis, 1))
    channels = layout.pages.shape[2]
    notes.append(f'{printable(path.name)} has several {what} but one position: the {what} were taken as the stack.')
  elif times > 1:
    notes.append(f'Only the first of the {times} times in {printable(path.name)} was read.')
  by_channel = [_page_files(path, layout.pages[0, :, c].tolist()) for c in range(channels)]
  chosen, which = choose_channel(by_channel, channel, path)
  return PageStack(by_channel[chosen], layout.positions, layout.unit, layout.source, chosen, channels, notes + which)


def is_truncated_stack(path: Path) -> bool:
  """Whether a file is a truncated TIFF with missing pages."""
  try:
    return path.suffix.lower() in TIFF_SUFFIXES and tiff.is_truncated(path)
  except (OSError, ValueError):
    return False


def picture_file(path: Path) -> FrameFile:
  """A file with a single image: for TIFFs, the page that is not a preview."""
  page = 0
  if path.suffix.lower() in TIFF_SUFFIXES:
    with contextlib.suppress(OSError, ValueError):  # reported when it is read
      page = tiff.pictures(tiff.read_pages(path))[0]
  return FrameFile(path, printable(path.name), page)


def _read_animation(path: Path) -> PageStack | None:
  with errors_naming_file(path), open_page(path) as image:
    # The first image of an APNG may be a fallback for programs without animations.
    first = int(getattr(image, 'default_image', False))
    pages = list(range(first, getattr(image, 'n_frames', 1)))
    few_colours = image.format == 'GIF'
  if len(pages) < 2:
    return None
  notes = []
  if few_colours:
    notes.append(f'{printable(path.name)} has at most 256 colours per frame, which makes depth less accurate.')
  return PageStack(_page_files(path, pages), None, '', '', 0, 1, notes)


def highest_snr(stacks: list[list[FrameFile]]) -> int:
  """Index of the stack with the highest ratio of structure to noise in its middle frame."""
  return int(np.argmax([_snr(files) for files in stacks]))


def _snr(files: list[FrameFile]) -> float:
  """Ratio of structure to noise of the readable frame nearest to the middle."""
  for n in sorted(range(len(files)), key=lambda n: abs(n - len(files) // 2)):
    with contextlib.suppress(UnreadableError):
      pixels = decode(read_header(files[n]), 1).pixels
      break
  else:
    return 0.0
  grey = pixels if isinstance(pixels, np.ndarray) else np.asarray(pixels.convert('L'))
  grey = np.nan_to_num(grey.reshape(*grey.shape[:2], -1)[..., 0].astype(np.float64), posinf=0, neginf=0)
  noise = np.median(np.abs(grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2])) + 1e-3 * (np.ptp(grey) + 1)
  step = max(2, max(grey.shape) // _CHANNEL_SIDE_PX)
  rows, columns = (n // step * step for n in grey.shape)
  means = grey[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
  return float(means.std() / noise)


def _page_files(path: Path, pages: list[int]) -> list[FrameFile]:
  digits = max(3, len(str(max(pages))))
  stem, suffix = printable(path.stem), printable(path.suffix)
  return [FrameFile(path, f'{stem}_{page:0{digits}}{suffix}', page, alone=False) for page in pages]


def _layout(description: str, pages: list[int], name: str) -> _Layout:
  layout = None
  if '<OME' in description[:2000]:
    # The XML may be anything; then the pages are used in their order.
    with contextlib.suppress(ElementTree.ParseError, ValueError, KeyError, TypeError, IndexError, StopIteration):
      layout = _ome_layout(_read_ome(description), pages, name)
  elif description.startswith('ImageJ='):
    with contextlib.suppress(ValueError):
      layout = _imagej_layout(description, pages)
  return layout or _Layout(np.array(pages)[None, :, None])


def read_plane_files(paths: list[Path], channel: int | None = None) -> PageStack | None:
  """The stack that is spread over the OME-TIFFs among `paths`; None: they are not OME-TIFFs, or not of one stack.

  Args:
    paths: files of one folder.
    channel: as for `read_page_stack`.

  Raises:
    InputError: there is no such channel.
  """
  tiffs = [path for path in paths if path.suffix.lower() in TIFF_SUFFIXES]
  found = {path: ome for path in tiffs if (ome := _ome_of(path))}
  planes = _planes_of_all(found, tiffs) if len(tiffs) > 1 else {}
  if not planes:
    return None
  first = min(time for time, _, _ in planes)
  depths, channels = (sorted({place[axis] for place in planes if place[0] == first}) for axis in (1, 2))
  files = {place[1:]: file for place, file in planes.items() if place[0] == first}
  if len(depths) < 2 or len(files) < len(depths) * len(channels) or len({file for file, _ in files.values()}) < 2:
    return None
  alone = all(page == 0 for _, page in files.values())
  by_channel = [
    [
      FrameFile(path, printable(path.name), alone=False) if alone else _page_files(path, [page])[0]
      for path, page in (files[z, c] for z in depths)
    ]
    for c in channels
  ]
  notes = ['The order of the planes is from OME-XML.']
  if len({time for time, _, _ in planes}) > 1:
    notes.append('Only the first of several times was read.')
  chosen, which = choose_channel(by_channel, channel, tiffs[0].parent)
  notes += which
  ome = next(ome for ome in found.values() if ome.planes)
  positions = None if ome.positions is None else ome.positions[depths]
  read = {file.path for file in by_channel[chosen]}
  if others := [path.name for path in paths if path not in read]:
    notes.append(f'Not read: {format_list(others)}.')
  return PageStack(by_channel[chosen], positions, ome.unit, ome.source, chosen, len(channels), notes)


def _planes_of_all(found: dict[Path, '_Ome'], tiffs: list[Path]) -> dict[tuple[int, int, int], tuple[Path, int]]:
  """File and page of each plane by time, depth and channel, from the first file whose XML lists planes."""
  by_name = {comparable(path.name): path for path in tiffs}
  for ome in found.values():
    planes = {
      place: (by_name[comparable(name)], page)
      for place, (name, page) in ome.planes.items()
      if name is not None and comparable(name) in by_name
    }
    if planes:
      return planes
  return {}


def choose_channel(by_channel: list[list[FrameFile]], channel: int | None, path: Path) -> tuple[int, list[str]]:
  """The channel to use, and a note about it if there are several.

  Args:
    by_channel: the files of each.
    channel: the one that is wanted. None: the one with the highest ratio of structure to noise.
    path: the file or folder that contains them.

  Raises:
    InputError: there is no such channel.
  """
  if channel is not None and not 0 <= channel < len(by_channel):
    raise InputError(f'channel is {channel}, expected 0 .. {len(by_channel) - 1}, the channels of {printable(path)}')
  if len(by_channel) == 1:
    return 0, []
  chosen = highest_snr(by_channel) if channel is None else channel
  note = f'Depth is from channel {chosen} (counted from 0) of the {len(by_channel)} in {printable(path.name)}.'
  return chosen, [note]


@dataclasses.dataclass
class _Ome:
  """OME-XML metadata of the first image.

  Attributes:
    sizes: numbers of depths, channels and times, by axis letter.
    fastest_first: axis letters in the order of the planes.
    planes: file name (None if not given) and page of each plane, by time, depth and channel; {}: not given.
    images: number of images.
    positions: along the axis. None: unknown.
    unit: of `positions`.
    source: as for `PageStack`.
  """

  sizes: dict[str, int]
  fastest_first: list[str]
  planes: dict[tuple[int, int, int], tuple[str | None, int]]
  images: int
  positions: Float64[np.ndarray, 'Z'] | None
  unit: str
  source: str


def _ome_of(path: Path) -> _Ome | None:
  """OME-XML metadata of any file; None if it has none."""
  try:
    (page, *_) = tiff.read_pages(path)
    return _read_ome(page.description) if '<OME' in page.description[:2000] else None
  except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration, ElementTree.ParseError):
    return None


def _read_ome(description: str) -> _Ome:
  root = ElementTree.fromstring(description.strip('\0 \n').encode())
  for element in root.iter():
    element.tag = element.tag.rpartition('}')[2]  # The namespace gives the version, which does not matter here.
  pixels = next(root.iter('Pixels'))
  channels = list(pixels.iter('Channel'))
  samples = int(channels[0].get('SamplesPerPixel', 1)) if channels else 1
  sizes = {axis: int(pixels.get(f'Size{axis}', 1)) for axis in 'ZCT'}
  sizes['C'] = max(1, sizes['C'] // samples)
  fastest_first = [axis for axis in pixels.get('DimensionOrder', 'XYZCT').upper() if axis in sizes]
  planes = {}
  for data in pixels.iter('TiffData'):
    uuid = next(data.iter('UUID'), None)
    name = None if uuid is None else uuid.get('FileName')
    page, count = int(data.get('IFD', 0)), int(data.get('PlaneCount', 1))
    if count == 1 and (data.get('FirstZ') is not None or name is not None):
      planes[tuple(int(data.get(f'First{axis}', 0)) for axis in 'TZC')] = (name, page)
    elif name is not None:
      shape = [sizes[axis] for axis in fastest_first]
      first = np.ravel_multi_index([int(data.get(f'First{axis}', 0)) for axis in fastest_first], shape, order='F')
      for n in range(count):
        place = dict(zip(fastest_first, np.unravel_index(first + n, shape, order='F'), strict=True))
        planes[tuple(int(place[axis]) for axis in 'TZC')] = (name, page + n)
  return _Ome(sizes, fastest_first, planes, len(list(root.iter('Image'))), *_ome_positions(pixels, sizes['Z']))


def _ome_positions(pixels: ElementTree.Element, depths: int) -> tuple[Float64[np.ndarray, 'Z'] | None, str, str]:
  """Positions along the axis, their unit, and where they were found (see `PageStack.source`)."""
  positions, unit = np.full(depths, np.nan), 'um'
  for plane in pixels.iter('Plane'):
    z = plane.get('PositionZ')
    if z is not None and int(plane.get('TheT', 0)) == 0 and np.isnan(positions[int(plane.get('TheZ', 0))]):
      positions[int(plane.get('TheZ', 0))] = float(plain_number(z))
      unit = plane.get('PositionZUnit', 'reference frame')
  if np.isfinite(positions).all() and len(np.unique(positions)) == len(positions):
    return *_unit_of_length(positions, unit), 'PositionZ in OME-XML'
  spacing = float(plain_number(pixels.get('PhysicalSizeZ', '0')))
  if spacing and np.isfinite(spacing):
    positions, unit = _unit_of_length(np.arange(depths) * spacing, pixels.get('PhysicalSizeZUnit', 'µm'))
    return positions, unit, 'PhysicalSizeZ in OME-XML'
  return None, '', 'PositionZ in OME-XML' if np.isfinite(positions).any() and depths > 1 else ''


def _ome_layout(ome: _Ome, pages: list[int], name: str) -> _Layout | None:
  own = {
    place: page for place, (file, page) in ome.planes.items() if file is None or comparable(file) == comparable(name)
  }
  if 0 < len(own) < len(ome.planes):  # the others are in other files
    axes = [sorted({place[n] for place in own}) for n in range(3)]
    if len(own) != len(pages) or len(own) != np.prod([len(axis) for axis in axes]) or not {*own.values()} <= {*pages}:
      return None
    layout = np.empty([len(axis) for axis in axes], int)
    for place, page in own.items():
      layout[tuple(axis.index(n) for axis, n in zip(axes, place, strict=True))] = page
    return _Layout(layout, None if ome.positions is None else ome.positions[axes[1]], ome.unit, ome.source)
  count, images = int(np.prod(list(ome.sizes.values()))), 1
  if ome.images > 1 and count < len(pages) and ome.sizes['Z'] * ome.sizes['T'] > 1:
    pages, images = pages[:count], ome.images
  if count != len(pages):
    return None
  slowest_first = ome.fastest_first[::-1]
  by_page = np.array(pages).reshape([ome.sizes[axis] for axis in slowest_first])
  layout = by_page.transpose([slowest_first.index(axis) for axis in 'TZC']).copy()
  for place, page in own.items():
    layout[place] = pages[page]
  return _Layout(layout, ome.positions, ome.unit, ome.source, images)


def _imagej_layout(description: str, pages: list[int]) -> _Layout | None:
  fields = dict(line.split('=', 1) for line in description.splitlines() if '=' in line)
  channels, depths, times = (int(fields.get(field, 1)) for field in ('channels', 'slices', 'frames'))
  if channels * depths * times == 1:  # a plain stack may have 'images' only
    depths = len(pages)
  elif depths * times == 1 and channels > _MAX_CHANNELS:
    depths, channels = channels, 1
  if channels * depths * times != len(pages):
    return None
  layout = np.array(pages).reshape(times, depths, channels)
  unit = re.sub(r'\\u([0-9a-fA-F]{4})', lambda code: chr(int(code[1], 16)), fields.get('unit', '')).strip('"')
  spacing = float(plain_number(fields.get('spacing', '0')))
  if not spacing or not np.isfinite(spacing) or unit.lower() in ('', 'pixel', 'pixels', 'null'):
    return _Layout(layout)
  positions, unit = _unit_of_length((np.arange(depths) - float(fields.get('zorigin', 0))) * spacing, unit)
  return _Layout(layout, positions, unit, "ImageJ's spacing")


def _unit_of_length(positions: Float64[np.ndarray, 'Z'], unit: str) -> tuple[Float64[np.ndarray, 'Z'], str]:
  """Converts units of length: one name for each; metres become micrometres, so that they are not taken for distances
  from a camera.
  """
  positions = positions + 0.0  # no negative zero
  unit = 'um' if re.fullmatch(r'(?:\?|[^\x00-\x7f]+)m', unit) else usual_unit(unit)  # also wrongly encoded
  return (positions * 1e6, 'um') if unit == 'm' else (positions, unit)
