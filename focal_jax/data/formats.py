"""Readable file formats, and advice for others."""

import contextlib
import functools
import importlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, features

from focal_jax.data.names import format_list

JPEG_SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif')  # browsers save .jfif
TIFF_SUFFIXES = ('.tif', '.tiff')
HEIC_SUFFIXES = ('.heic', '.heif', '.hif')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', *TIFF_SUFFIXES, '.bmp', '.webp')
# Less common ones, which Pillow reads depending on its build; cameras write .mpo.
_JPEG_2000 = ('.jp2', '.j2k', '.jpx')
_MORE_SUFFIXES = ('.jfif', '.jpe', '.mpo', '.gif', '.pgm', '.ppm', '.pnm', '.pbm', '.tga', *_JPEG_2000)
RAW_SUFFIXES = (
  '.3fr', '.arw', '.cr2', '.cr3', '.crw', '.dcr', '.dng', '.erf', '.fff', '.gpr', '.iiq', '.kdc', '.mef', '.mos',
  '.mrw', '.nef', '.nrw', '.orf', '.pef', '.raf', '.raw', '.rw2', '.rwl', '.sr2', '.srf', '.srw', '.x3f',
)  # fmt: skip
_MICROSCOPE = (
  '.czi', '.dv', '.ims', '.lif', '.lsm', '.mrxs', '.nd2', '.ndpi', '.oib', '.oif', '.oir', '.stk', '.svs', '.vsi',
  '.zvi',
)  # fmt: skip
_VIDEO = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpg', '.mts', '.webm', '.wmv')
_ARCHIVES = ('.7z', '.gz', '.rar', '.tar', '.tgz', '.zip')
_OTHER = ('.bpg', '.dcm', '.exr', '.fit', '.fits', '.fts', '.hdr', '.jpf', '.psd', '.xcf', *_MORE_SUFFIXES)
_ADVICE = {
  **dict.fromkeys(HEIC_SUFFIXES, 'install pillow-heif (pip install pillow-heif), or convert them to JPEG or PNG'),
  '.avif': 'install Pillow 11.3 or newer, which decodes AVIF, or convert them to JPEG or PNG',
  '.jxl': 'install pillow-jxl-plugin (pip install pillow-jxl-plugin), or convert them to JPEG or PNG',
  **dict.fromkeys(
    RAW_SUFFIXES,
    'develop raw files to TIFF or JPEG with a raw converter (darktable, RawTherapee), all with the same settings',
  ),
  **dict.fromkeys(_MICROSCOPE, 'export them as OME-TIFF from Fiji or the microscope software'),
  **dict.fromkeys(_VIDEO, 'extract the frames as images first (ffmpeg -i VIDEO frame_%04d.png)'),
  **dict.fromkeys(_ARCHIVES, 'unpack it first'),
  '.pdf': 'extract its images first (pdfimages -all FILE image)',
  '.ser': 'extract its frames as TIFF first (SER Player, PIPP)',
  **dict.fromkeys(_OTHER, 'convert them to TIFF or PNG'),
}
_INCOMPLETE = ('.crdownload', '.download', '.opdownload', '.part', '.partial')  # of downloads
_MAX_OPENED = 100  # maximum number of files that are opened to see whether they are images
# First bytes of files: formats that Pillow reads, and advice for what it does not, or misreads.
JPEG_START = b'\xff\xd8\xff'
_IMAGES = {JPEG_START: 'JPEG', b'\x89PNG': 'PNG', b'GIF8': 'GIF', b'BM': 'BMP'}
_OTHERS = {
  b'%PDF': f'it is a PDF: {_ADVICE[".pdf"]}',
  b'PK\3\4': f'it is a ZIP archive: {_ADVICE[".zip"]}',
  b'\0\5\x16\7': 'it is an AppleDouble file, which macOS writes beside the image itself',
  b'FUJIFILMCCD-RAW': f'it is a raw file: {_ADVICE[".raf"]}',
  b'version https://git-lfs': 'it is a Git LFS pointer, not the image itself: fetch it with git lfs pull',
  b'MM\0+': 'it is a big-endian BigTIFF: save it as classic TIFF, or as little-endian',
}
# Plugins for Pillow: module, and function that registers the format, if importing is not enough.
_PLUGINS = {'pillow_heif': 'register_heif_opener', 'pillow_jxl': None, 'pillow_avif': None}


@functools.cache
def readable_suffixes() -> tuple[str, ...]:
  """`IMAGE_SUFFIXES` and those that the installed Pillow and its plugins read in addition: HEIC, AVIF, JPEG XL."""
  plugins = {module for module, register in _PLUGINS.items() if _import_plugin(module, register)}
  Image.init()
  known = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
  known.add('.mpo')  # Pillow opens it as JPEG
  # Pillow registers the suffix even if it was built without the decoder.
  if not ('avif' in features.modules and features.check('avif')) and 'pillow_avif' not in plugins:
    known.discard('.avif')
  if not features.check('jpg_2000'):
    known.difference_update(_JPEG_2000)
  more = (*HEIC_SUFFIXES, '.avif', '.jxl', *_MORE_SUFFIXES)
  return IMAGE_SUFFIXES + tuple(suffix for suffix in more if suffix in known)


def _import_plugin(module: str, register: str | None) -> bool:
  """Whether the plugin is installed and works. A broken one is not an error, because its files are reported as not
  read.
  """
  try:
    plugin = importlib.import_module(module)
    if register:
      getattr(plugin, register)()
  except Exception:
    return False
  return True


def is_image(path: Path) -> bool:
  return path.suffix.lower() in readable_suffixes() and not path.name.startswith('.')


def expected_suffixes() -> str:
  """The common readable suffixes, for messages."""
  more = len(set(readable_suffixes()) & set(_MORE_SUFFIXES))
  usual = [suffix for suffix in readable_suffixes() if suffix not in _MORE_SUFFIXES]
  return ', '.join(usual) + (' ...' if more else '')


def unread(paths: Iterable[Path]) -> list[str]:
  """One sentence per kind of unreadable image files: how many there are and what to do."""
  found: dict[str, list[str]] = {}
  away, incomplete = 0, []
  for path in paths:
    suffix = path.suffix.lower()
    if path.name.startswith('.'):
      away += suffix == '.icloud'  # placeholder of a file that was not downloaded
    elif suffix in _INCOMPLETE and is_image(path.with_suffix('')):
      incomplete.append(path.name)
    elif suffix in _ADVICE and suffix not in readable_suffixes():
      found.setdefault(_ADVICE[suffix], []).append(path.suffix)
  notes = []
  for advice, written in sorted(found.items(), key=lambda item: (-len(item[1]), item[1])):
    types = sorted({suffix.lower(): suffix for suffix in written[::-1]}.values())
    files = f'{"file" if len(written) == 1 else "files"} of {"type" if len(types) == 1 else "types"}'
    was = 'was' if len(written) == 1 else 'were'
    notes.append(f'{len(written)} {files} {format_list(types)} {was} not read: {advice}.')
  if incomplete:
    notes.append(f'Not read: {format_list(sorted(incomplete))}, not downloaded completely.')
  if away:
    notes.append(f'{away} {"file is" if away == 1 else "files are"} only in iCloud: download them first.')
  return notes


def other_types(paths: Iterable[Path]) -> list[str]:
  """A sentence with the numbers of other files by their suffix, if there are any: [] or one item."""
  counts = Counter(path.suffix.lower() for path in paths if path.suffix and not path.name.startswith('.'))
  if not counts:
    return []
  return [f'found files of type {format_list([f"{suffix} ({count})" for suffix, count in counts.most_common()])}.']


def badly_named(paths: Iterable[Path]) -> list[str]:
  """Sentences about images whose names do not say so: without a suffix, with an unknown one, or hidden."""
  found: dict[str, list[str]] = {'without a suffix': [], 'with an unknown suffix': []}
  paths = sorted(paths)
  for path in paths[:_MAX_OPENED]:
    if path.name.startswith('.') or is_image(path) or path.suffix.lower() in _ADVICE or not path.is_file():
      continue
    with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError), Image.open(path):
      found['with an unknown suffix' if path.suffix else 'without a suffix'].append(path.name)
  notes = [
    f'{format_list(names)}: images by their content, but {what}; {advice}, such as .jpg.'
    for (what, names), advice in zip(found.items(), ('add one', 'add a usual one'), strict=True)
    if names
  ]
  if doubles := [path.name for path in paths if path.name.startswith('._') and is_image(Path(path.name[2:]))]:
    notes.append(f'{format_list(doubles)}: files that macOS writes beside the images themselves, which are missing.')
  return notes


def advice_for_content(start: bytes) -> str | None:
  """Advice for an image file that begins with these bytes (32 or more); None: nothing known.

  Phones and messengers name HEIC files .jpg.
  """
  if start and not any(start):
    return 'it begins with zeros: it was probably not copied or downloaded completely'
  for first, what in _OTHERS.items():
    if start.startswith(first):
      return what
  if start.lstrip()[:6].lower() in (b'<!doct', b'<html>', b'<html '):
    return 'it is a web page'
  brand = start[8:12] if start[4:8] == b'ftyp' else b''
  if brand == b'crx ':
    return f'it is a raw file: {_ADVICE[".cr3"]}'
  if brand in (b'qt  ', b'isom', b'mp41', b'mp42', b'avc1', b'3gp4', b'3gp5'):
    return f'it is a video: {_ADVICE[".mp4"]}'
  kinds = {
    '.heic': brand in (b'heic', b'heix', b'heim', b'heis', b'hevc', b'mif1', b'msf1'),
    '.avif': brand in (b'avif', b'avis'),
    '.jxl': start.startswith((b'\xff\x0a', b'\0\0\0\x0cJXL ')),
  }
  suffix = next((suffix for suffix, is_it in kinds.items() if is_it), None)
  if suffix is None:
    return None
  advice = ', which cannot be decoded' if suffix in readable_suffixes() else f': {_ADVICE[suffix]}'
  return f'it holds {suffix[1:].upper()} by its content{advice}'


def unidentified(start: bytes) -> str:
  """Why Pillow cannot tell what a file is that begins with these bytes."""
  kind = next((kind for first, kind in _IMAGES.items() if start.startswith(first)), None)
  return f'it begins like a {kind}, but is damaged or of a rare kind' if kind else 'its content is not an image'
