"""Focus distances in XMP packets, which cameras and programs write into images beside EXIF or instead of it, or into
files beside the images.
"""

import contextlib
import math
import re
from collections.abc import Iterable
from pathlib import Path

from focal_jax.data.formats import RAW_SUFFIXES
from focal_jax.data.names import comparable
from focal_jax.data.units import METRES, plain_number, split_unit

# Local names of the properties, whatever their prefix, the most reliable first: exif:SubjectDistance,
# aux:ApproximateFocusDistance. Both are in metres.
_PROPERTIES = ('SubjectDistance', 'ApproximateFocusDistance', 'FocusDistance')
_PROPERTY = re.compile(
  rf'\b[\w.-]+:({"|".join(_PROPERTIES)})\b(?:\s*=\s*["\']([^"\'<>]*)["\']|(?:\s[^<>]*)?>([^<>]*)</)'
)
_INFINITE = str(0xFFFFFFFF)  # numerator, as in EXIF
_MAX_BYTES = 1 << 20  # of a packet; more are previews


def focus_distance_m(packet: bytes | str | None) -> float | None:
  """The focus distance in an XMP packet, m; infinity is inf. None: there is none, or it is unknown."""
  if not packet:
    return None
  if isinstance(packet, bytes):
    packet = packet[:_MAX_BYTES].replace(b'\0', b'').decode('latin-1')  # any encoding will do for these characters
  values = ((name, in_quotes or between) for name, in_quotes, between in _PROPERTY.findall(packet))
  found = {name: value for name, value in values if value}  # end tags look like empty elements
  return next((value for name in _PROPERTIES if (value := _metres(found.get(name, ''))) is not None), None)


def distances_in_files(names: list[str], paths: Iterable[Path]) -> dict[str, float]:
  """The focus distances, m, of the frames that have one in an XMP file beside them.

  Programs name it after the photograph without its suffix (Lightroom), with it (digiKam), or after the raw file that
  the frame was developed from (darktable): `a.xmp`, `a.jpg.xmp` or `a.nef.xmp` for `a.jpg`.

  Args:
    names: of the frames.
    paths: files of their folder; those that cannot be read are passed over.
  """
  files = {
    comparable(path.stem): path for path in paths if path.suffix.lower() == '.xmp' and not path.name.startswith('.')
  }
  found = {}
  for name in names if files else ():
    stem = Path(name).stem
    of_frame = (files.get(comparable(stem + suffix)) for suffix in (Path(name).suffix, '', *RAW_SUFFIXES))
    for path in filter(None, of_frame):
      with contextlib.suppress(OSError):
        if (distance := focus_distance_m(path.read_bytes())) is not None:
          found[name] = distance
          break
  return found


def _metres(text: str) -> float | None:
  """A distance such as 35/100, 0.35 or 350 mm; None: it is none, or 0, which means unknown."""
  number, unit = split_unit(text)
  if number.partition('/')[0].strip() == _INFINITE:
    return math.inf
  try:
    metres = float(plain_number(number)) * METRES.get(unit or 'm', math.nan)
  except ValueError:
    return None
  return metres if metres > 0 else None
