"""An interactive report of a prediction in one self-contained HTML file: `report.html` with data."""

import base64
import io
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from focal_jax.files import pictures
from focal_jax.focus.classical import luminance_on_host
from focal_jax.focus.frame_by_frame import focus_measure
from focal_jax.prediction.surface import RELIEF_UNIT, Surface, point_cloud
from focal_jax.stack import Prediction

_TEMPLATE = Path(__file__).with_name('report.html')
_MAX_SIDE = 512  # maximum longer side of images, px
_MAX_BYTES = 5e6  # limit for images and maps, before base64 adds a third
_MAX_POINTS = 60_000  # maximum size of the point cloud, for browsers without a GPU
_JPEG_QUALITY = 85


def write_report(
  path: Path,
  *,
  title: str,
  names: Sequence[str],
  before: Shaped[np.ndarray, 'N h w 3'],
  prediction: Prediction,
  focus: Float[np.ndarray, 'N'],
  unit: str,
  picture: Shaped[np.ndarray, 'H W 3'],
  surface: Surface,
  facts: Sequence[tuple[str, str]] = (),
  measure: str = 'ring_difference',
  depth: Float[np.ndarray, 'H W'] | None = None,
  confidence: Float[np.ndarray, 'H W'] | None = None,
  min_confidence: float = 0.0,
) -> None:
  """Writes the report.

  Images are reduced. Depth, confidence and curves are those of single pixels, whose positions are given in the whole
  image. Depth is stored unchanged, confidence in steps of 1 / 65535, curves in steps of 1 / 255.

  Args:
    path: the file to write.
    title: of the stack.
    names: of the frames.
    before: unaligned frames, far to near, uint8 or float 0 .. 1.
    prediction: its arrays on the host; may be smaller than the picture.
    focus: focus coordinate of each frame.
    unit: of `focus`.
    picture: all-in-focus image, uint8 or float 0 .. 1.
    surface: for the point cloud.
    facts: further (name, text) pairs to show.
    measure: one of `classical.MEASURES`, whose curve is shown if the prediction has no focus distribution.
    depth, confidence: at the size of the picture; None: those of the prediction.
    min_confidence: depth with a lower confidence fades to grey, 0 .. 1.
  """
  depth = prediction.depth if depth is None else depth
  confidence = prediction.confidence if confidence is None else confidence
  frames, (height, width) = len(names), picture.shape[:2]
  # Per frame, a pixel takes one byte for its curve and about half a byte in two JPEGs; plus eight bytes per pixel.
  side = min(_MAX_SIDE, math.sqrt(_MAX_BYTES / (1.5 * frames + 8) * max(height, width) / min(height, width)))
  size = tuple(max(1, round(n * min(1, side / max(height, width)))) for n in (height, width))
  at, of_prediction = _block_centres(size, depth.shape), _block_centres(size, prediction.depth.shape)
  if prediction.weights is None:
    curves, curve_name = (
      _focus_measures(prediction, of_prediction, measure),
      f'{measure.replace("_", " ")}, 1 at its peak',
    )
  else:
    curves, curve_name = (
      np.stack([weights[of_prediction] for weights in prediction.weights]),
      'focus distribution, share',
    )
  cloud = point_cloud(surface, _MAX_POINTS)
  low, high = (np.min(cloud.points, 0), np.max(cloud.points, 0)) if len(cloud.points) else (np.zeros(3), np.ones(3))
  # The same stride along both axes.
  step = max(float(np.max(high - low)) / 65535, 1e-30)
  data = {
    'title': title,
    'facts': [
      *facts,
      ('size', f'{width} x {height} px' + (f', shown at {size[1]} x {size[0]}' if size != (height, width) else '')),
    ],
    'names': list(names),
    'focus': [float(value) for value in focus],
    'unit': unit,
    'inverse_of': None if surface.unit in (unit, RELIEF_UNIT) else surface.unit,
    'whole': [height, width],
    'size': size,
    'before': [_jpeg(image, size) for image in before],
    'after': [_jpeg(image, size) for image in prediction.aligned],
    'picture': _jpeg(picture, size),
    'depth': _packed(depth[at].astype('<f4')),
    'confidence': _packed(np.round(np.clip(confidence[at], 0, 1) * 65535).astype('<u2')),
    'min_confidence': min_confidence,
    'faded': [round(255 * pictures.FADED_GREY), pictures.FADED_SHARE],
    'curves': _packed(np.round(np.clip(curves, 0, 1) * 255).astype(np.uint8)),
    'curve_name': curve_name,
    'colours': {
      name: _packed((matplotlib.colormaps[table](np.arange(256))[:, :3] * 255).round().astype(np.uint8))
      for name, table in (('depth', pictures.DEPTH_COLOURS), ('confidence', pictures.CONFIDENCE_COLOURS))
    },
    'cloud': {
      'points': _packed(np.round((cloud.points - low) / step).astype('<u2')),
      'colours': _packed(cloud.colours),
      'origin': [float(value) for value in low],
      'step': step,
      'focal_length': surface.camera.focal_length_px / width,  # relative to the image width
      'point_width': cloud.stride / surface.camera.focal_length_px,  # relative to its distance
      'note': _cloud_note(surface, len(cloud.points)),
    },
  }
  # In a script element, '<' would begin its end or a comment.
  text = json.dumps(data, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
  path.write_text(_TEMPLATE.read_text(encoding='utf-8').replace('{{data}}', text), encoding='utf-8')


def _block_centres(size: tuple[int, int], whole: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
  """Index of the centre pixels of `size` blocks of an image."""
  return np.ix_(*(((np.arange(n) + 0.5) * length / n).astype(int) for n, length in zip(size, whole, strict=True)))


def _focus_measures(
  prediction: Prediction, at: tuple[np.ndarray, np.ndarray], measure: str
) -> Float[np.ndarray, 'N h w']:
  """Focus measure of the chosen pixels relative to the maximum over frames; 0 in frames that do not cover the pixel."""
  # Frame by frame, to save memory.
  values = np.stack(
    [
      np.asarray(focus_measure(luminance_on_host(frame), measure))[at] * coverage[at]
      for frame, coverage in zip(prediction.aligned, prediction.coverage, strict=True)
    ]
  )
  return values / np.maximum(values.max(0), np.finfo(np.float32).tiny)


def _cloud_note(surface: Surface, points: int) -> str:
  camera = surface.camera
  view = f'focal length {camera.focal_length_px:.0f} px' + (' (assumed)' if camera.assumed else '')
  scale = 'distances have no scale; depth is shown as a relief' if surface.unit == RELIEF_UNIT else f'in {surface.unit}'
  left_out = [
    f'{count:,} pixels left out: {why}'
    for count, why in (
      (surface.low_confidence, 'low confidence'),
      (surface.too_far, f'beyond {surface.farthest or 0:.3g} {surface.unit}'),
    )
    if count
  ]
  return '; '.join([f'{points:,} points', view, scale, *left_out])


def _jpeg(image: Shaped[np.ndarray, 'H W 3'], size: tuple[int, int]) -> str:
  """The image, reduced to (height, width), as a data URI."""
  reduced = Image.fromarray(pictures.to_uint8(image)).resize(size[::-1], Image.Resampling.LANCZOS, reducing_gap=3.0)
  file = io.BytesIO()
  reduced.save(file, 'JPEG', quality=_JPEG_QUALITY)
  return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()


def _packed(values: Shaped[np.ndarray, '*S']) -> dict[str, Any]:
  """An array in the form that the page decodes."""
  return {
    'type': values.dtype.name,
    'data': base64.b64encode(zlib.compress(np.ascontiguousarray(values), 9)).decode(),
  }
