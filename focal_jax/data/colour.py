"""Colour profiles: images are converted to sRGB, which networks were trained on and screens assume."""

import functools
import io
import struct

import numpy as np
from PIL import Image, ImageCms

from focal_jax.errors import one_line

_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_MAX_SRGB_DIFFERENCE = 2  # of 255; profiles that differ from sRGB by at most this count as sRGB
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC

# Colourants for the profile white point (D50): rows are X, Y, Z of red, green and blue (Adobe RGB (1998), 2005-05).
_ADOBE_COLOURANTS = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
_ADOBE_GAMMA = 563 / 256
_SRGB_COLOURANTS = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
_USUAL_GAMMA = 1 / 2.2  # in PNGs; means sRGB


class ColourReader:
  """Converts the images of one stack to sRGB, and collects notes."""

  def __init__(self):
    self._converted: list[str] = []
    self._broken: list[str] = []

  @property
  def notes(self) -> list[str]:
    return [f'Colours were converted from "{name}" to sRGB.' for name in self._converted] + self._broken

  def convert(self, image: Image.Image, profile: bytes | None, adobe_rgb: bool, name: str) -> Image.Image:
    """An 8-bit sRGB image without alpha.

    Args:
      image: any 8-bit mode.
      profile: the ICC profile in its file, if any.
      adobe_rgb: it is Adobe RGB unless a profile says otherwise.
      name: file name, for the notes.
    """
    if image.mode not in ('L', 'CMYK'):
      if image.mode == 'LAB':  # the profile describes Lab values, which Pillow converts itself
        profile = None
      image = image.convert('L' if image.mode in ('1', 'LA') else 'RGB')
    if not profile and adobe_rgb and image.mode == 'RGB':
      profile = matrix_profile('Adobe RGB', _ADOBE_COLOURANTS, _ADOBE_GAMMA)
    if profile:
      if image.mode == 'L' and profile[16:20] == b'RGB ':  # a colour image converted to grey
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
  """Name of the profile and the transform from it; None: it is sRGB."""
  opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
  described = ' '.join(ImageCms.getProfileDescription(opened).split())[:60] or 'a profile without a name'
  srgb = ImageCms.createProfile('sRGB')
  transform = ImageCms.buildTransform(opened, srgb, mode, 'RGB', _INTENT, _FLAGS)
  # Names are not reliable: many profiles are sRGB under another name, and some named sRGB are not.
  if mode == 'RGB':
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    change = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), transform)).astype(int) - probe
    if abs(change).max() <= _MAX_SRGB_DIFFERENCE:
      transform = None
  return described, transform


def profile_of(info: dict) -> bytes | None:
  """The profile in an image's `Image.info`, or one that stands for the gamma in a PNG without one."""
  profile, gamma = info.get('icc_profile'), info.get('gamma')
  if profile or 'srgb' in info or not gamma or abs(gamma - _USUAL_GAMMA) < 0.01 or not 0.1 < gamma < 10:
    return profile
  return matrix_profile(f'PNG with gamma {1 / gamma:.2g}', _SRGB_COLOURANTS, 1 / gamma)


def matrix_profile(name: str, colourants: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
  """An ICC profile (version 2) of a colour space.

  Args:
    name: its description.
    colourants: X, Y, Z of red, green and blue for D50.
    gamma: exponent of all three curves, accurate to 1/256.
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
