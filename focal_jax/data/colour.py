"""Colour profiles: pictures become sRGB, what networks were trained on and screens assume."""

import functools
import io
import struct

import numpy as np
from PIL import Image, ImageCms

from focal_jax.errors import one_line

_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_SAME_LEVELS = 2  # of 255; profiles that differ by less from sRGB are variants of it
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC

# Colourants under the white of profiles (D50): rows are X, Y, Z of red, green and blue (Adobe RGB (1998), 2005-05).
_ADOBE_COLOURANTS = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
_ADOBE_GAMMA = 563 / 256


class ColourReader:
  """Converts the pictures of one stack to sRGB, and remembers for the notes what it met."""

  def __init__(self):
    self._converted: list[str] = []
    self._broken: list[str] = []

  @property
  def notes(self) -> list[str]:
    return [f'Colours were converted from "{name}" to sRGB.' for name in self._converted] + self._broken

  def convert(self, image: Image.Image, profile: bytes | None, adobe_rgb: bool, name: str) -> Image.Image:
    """RGB of 8 bits, in sRGB, without alpha.

    Args:
      image: of any mode of 8 bits.
      profile: that its file holds.
      adobe_rgb: it is Adobe RGB if no profile says otherwise.
      name: of the file, for the notes.
    """
    if image.mode not in ('L', 'CMYK'):
      if image.mode == 'LAB':  # a profile is of those values, which Pillow knows how to convert
        profile = None
      image = image.convert('L' if image.mode in ('1', 'LA') else 'RGB')
    if not profile and adobe_rgb and image.mode == 'RGB':
      profile = matrix_profile('Adobe RGB', _ADOBE_COLOURANTS, _ADOBE_GAMMA)
    if profile:
      if image.mode == 'L' and profile[16:20] == b'RGB ':  # of a picture in colour that was made grey
        image = image.convert('RGB')
      try:
        described, transform = _transform(profile, image.mode)
        if transform is not None:
          image = ImageCms.applyTransform(image, transform)
          if described not in self._converted:
            self._converted.append(described)
      except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError) as error:
        if not self._broken:
          self._broken.append(
            f'The colour profile of {name} cannot be used ({one_line(error)[:80]}): its colours were taken as sRGB.'
          )
    return image.convert('RGB')


@functools.lru_cache(maxsize=4)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
  """The profile's name and what converts from it; None: it is sRGB."""
  opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
  described = ' '.join(ImageCms.getProfileDescription(opened).split())[:60] or 'a profile without a name'
  srgb = ImageCms.createProfile('sRGB')
  transform = ImageCms.buildTransform(opened, srgb, mode, 'RGB', _INTENT, _FLAGS)
  # Names tell nothing: many profiles are sRGB under other ones, and some are called so and are not.
  if mode == 'RGB':
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    change = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), transform)).astype(int) - probe
    if abs(change).max() <= _SAME_LEVELS:
      transform = None
  return described, transform


def matrix_profile(name: str, colourants: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
  """An ICC profile (version 2) of a colour space.

  Args:
    name: that it shows.
    colourants: X, Y, Z of red, green and blue under D50.
    gamma: of the curve of each, at most 1/256 off.
  """

  def fixed(*values: float) -> bytes:
    return struct.pack(f'>{len(values)}i', *(round(value * 65536) for value in values))

  text = name.encode('ascii') + b'\0'
  curve = b'curv' + bytes(4) + struct.pack('>IH', 1, round(gamma * 256)) + bytes(2)
  tags = {
    b'desc': b'desc' + bytes(4) + struct.pack('>I', len(text)) + text + bytes(78),
    b'cprt': b'text' + bytes(4) + b'none\0',
    b'wtpt': b'XYZ ' + bytes(4) + fixed(0.9642, 1.0, 0.8249),
    **{key: b'XYZ ' + bytes(4) + fixed(*xyz) for key, xyz in zip((b'rXYZ', b'gXYZ', b'bXYZ'), colourants, strict=True)},
    **dict.fromkeys((b'rTRC', b'gTRC', b'bTRC'), curve),
  }
  table, data = struct.pack('>I', len(tags)), b''
  start = 128 + 4 + 12 * len(tags)
  for key, value in tags.items():
    table += key + struct.pack('>II', start + len(data), len(value))
    data += value + bytes(-len(value) % 4)
  header = struct.pack('>I4sI4s4s4s', start + len(data), bytes(4), 0x02100000, b'mntr', b'RGB ', b'XYZ ')
  header += struct.pack('>6H', 2000, 1, 1, 0, 0, 0) + b'acsp' + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
  return header + table + data
