"""EXIF and XMP of a frame as numbers. Damaged and meaningless entries, which cameras often write, count as missing."""

import dataclasses
import datetime
import math
import re

from PIL import ExifTags, Image

from focal_jax.data.xmp import focus_distance_m

_TURNED = (5, 6, 7, 8)  # values of Orientation: rows of the file are columns of the upright image
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # FocalPlaneResolutionUnit; 4 and 5 are non-standard but in use
_FULL_FRAME_MM = math.hypot(36, 24)  # 35 mm equivalents are those of equal diagonals (CIPA DCG-001)
_INFINITY = 0xFFFFFFFF  # numerator of an infinite SubjectDistance


@dataclasses.dataclass(frozen=True)
class FrameExif:
  """EXIF of one frame; None: missing.

  Attributes:
    subject_distance: as written: in metres by the standard (infinity is inf, and 0 means unknown), in dioptres on some
      devices.
    xmp_distance_m: focus distance in XMP, also in a file beside the frame, m; infinity is inf.
    focal_length_mm: focal length of the lens.
    f_number: of the lens.
    focal_length_px: in pixels of the whole upright image, from the 35 mm equivalent or else from the sensor's pixels
      per length. Approximate: the former is a whole number, and both are wrong for cropped images.
    taken_s: capture time by the camera's clock, s; only differences are meaningful.
    orientation: how to rotate the pixels, 1 (as they are) .. 8.
    adobe_rgb: the camera says that the colours are Adobe RGB, which it may do without a profile.
  """

  subject_distance: float | None = None
  xmp_distance_m: float | None = None
  focal_length_mm: float | None = None
  f_number: float | None = None
  focal_length_px: float | None = None
  taken_s: float | None = None
  orientation: int = 1
  adobe_rgb: bool = False


def read_exif(exif: Image.Exif, size: tuple[int, int], xmp: bytes | str | None = None) -> FrameExif:
  """EXIF of an image in its stored orientation; `size` is its width and height, px, and `xmp` its XMP packet."""
  tags = exif.get_ifd(ExifTags.IFD.Exif)

  def number(name: str) -> float | None:
    value = tags.get(ExifTags.Base[name])
    if isinstance(value, float):  # non-standard, but some programs write it
      return None if math.isnan(value) else value
    try:
      # Some cameras write infinity as a number over 0.
      infinite = value.numerator == _INFINITY or (value.denominator == 0 < value.numerator)
      return math.inf if infinite else float(value)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):  # not one number
      return None

  def positive(name: str) -> float | None:
    value = number(name)
    return value if value is not None and 0 < value < math.inf else None

  orientation = exif.get(ExifTags.Base.Orientation)
  distance = number('SubjectDistance')
  focal_length_mm = positive('FocalLength')
  axis = 'Y' if orientation in _TURNED else 'X'
  equivalent_mm = positive('FocalLengthIn35mmFilm')
  resolution = positive(f'FocalPlane{axis}Resolution')
  if equivalent_mm:
    focal_length_px = equivalent_mm / _FULL_FRAME_MM * math.hypot(*size)
  elif focal_length_mm and resolution:
    unit_mm = _MM_PER_UNIT.get(number('FocalPlaneResolutionUnit'), _MM_PER_UNIT[2])
    focal_length_px = focal_length_mm * resolution / unit_mm
    # The resolution is that of the image as captured, which may have been reduced since.
    taken = [positive(name) for name in ('ExifImageWidth', 'ExifImageHeight')]
    if all(taken):
      focal_length_px *= max(size) / max(taken)
  else:
    focal_length_px = None
  return FrameExif(
    subject_distance=distance if distance is not None and distance >= 0 else None,
    xmp_distance_m=focus_distance_m(xmp),
    focal_length_mm=focal_length_mm,
    f_number=positive('FNumber'),
    focal_length_px=focal_length_px,
    taken_s=_taken_s(tags),
    orientation=orientation if orientation in range(1, 9) else 1,
    # The standard for camera files (DCF) has two colour spaces.
    adobe_rgb=_text(exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)).startswith('R03'),
  )


def _taken_s(tags: dict) -> float | None:
  """DateTimeOriginal with its fraction of a second, in seconds since a fixed day."""
  try:
    text = _text(tags.get(ExifTags.Base.DateTimeOriginal)).strip('\0 ')
    seconds = (datetime.datetime.strptime(text, '%Y:%m:%d %H:%M:%S') - datetime.datetime(2000, 1, 1)).total_seconds()
  except ValueError:
    return None
  fraction = re.match(r'\s*(\d+)', _text(tags.get(ExifTags.Base.SubsecTimeOriginal)))
  return seconds + (float(f'0.{fraction[1]}') if fraction else 0.0)


def _text(value: object) -> str:
  return value.decode('latin-1') if isinstance(value, bytes) else value if isinstance(value, str) else ''
