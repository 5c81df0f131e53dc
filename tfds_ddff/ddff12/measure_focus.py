r"""Measures how far the focus labels of DDFF-12 are from where its frames are in focus, on the training part alone.

  python -m tfds_ddff.ddff12.measure_focus --manual_dir=downloads [--dataset=ddff12/raw] [--out=focus.json]
    python -m tfds_ddff.ddff12.measure_focus --data_dir=data  # for a built data set

Frames and truth are labelled with disparity B f / Z, but the disparity between views of the light field camera is
B f / Z minus a constant. A pixel of true disparity d is therefore sharpest in a frame labelled d minus that constant,
which is `optics.DDFF_FOCUS_OFFSET_PX` in this project. It is measured as follows:

1. Textured pixels: the 30 % of each stack in which frames differ most (standard deviation of the luminance over the
   frames), away from the border, which refocusing fills in.
2. The label at which such a pixel is sharpest, interpolated by a Gaussian through three frames
   (`classical.gaussian_peak`).
3. For each stack, the median label by true disparity, in steps of 0.02 px; a median, because pixels next to an edge are
   often sharpest elsewhere.
4. Only true disparities with few pixels that are sharpest in the first or last frame, because those may be in focus
   beyond the sweep. As long as they are less than half, they do not change the median.
5. The constant is the median of the rest, truth minus label, one value per stack and step. Its interval is from
   bootstrapping the stacks as if they were independent; crops of one light field are not, so it is too narrow.

Prints a table, the constant and its interval; exit status 2 and one line on stderr for invalid input.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array, Float
from tqdm import tqdm

from focal_jax.command_line import run_program
from focal_jax.errors import InputError, one_line
from focal_jax.files.outputs import write_whole
from focal_jax.focus import classical
from focal_jax.optics import DDFF_FOCUS_OFFSET_PX
from tfds_ddff import find, load

TEXTURED = 0.3  # share of a stack's valid pixels
STEP_PX = 0.02  # of true disparity
EDGES_PX = np.arange(15) * STEP_PX  # 0 .. 0.28 px: without the last 0.0025 px of DDFF-12's range
MIN_PIXELS = 100  # minimum number of pixels per stack and step
MAX_AT_ENDS = 0.4  # maximum share of pixels that are sharpest in the first or last frame
MARGIN_PX = 5
WINDOW_PX = 1.5  # of the focus measure
LEVEL, RESAMPLES = 0.95, 2000


@dataclasses.dataclass(frozen=True, eq=False)
class FocusMeasurement:
  """Result for S stacks and B steps of true disparity.

  Attributes:
    labels: [S, B] median label of the sharpest frame, px; NaN where a stack has too few pixels.
    offsets: [S, B] median of true disparity minus label, px; NaN likewise.
    at_ends: [B] share of pixels that are sharpest in the first or last frame; NaN for no pixels.
    pixels: [B] number of textured pixels in all stacks.
    counted: [B] whether a step contributes to the constant.
    offset: the constant, px.
    interval: its confidence interval, px; NaN with fewer than two stacks.
    stacks: number of stacks that contribute.
  """

  labels: np.ndarray
  offsets: np.ndarray
  at_ends: np.ndarray
  pixels: np.ndarray
  counted: np.ndarray
  offset: float
  interval: tuple[float, float]
  stacks: int

  def table(self) -> str:
    """Markdown: label of the sharpest frame and the difference by true disparity, medians over the stacks."""
    lines = [
      '| true disparity, px | label of the sharpest frame | truth - label | in an end frame | stacks | pixels |',
      '| ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for step in np.flatnonzero(np.isfinite(self.labels).any(0))[::-1]:
      known = np.isfinite(self.labels[:, step])
      label, offset = np.median(self.labels[known, step]), np.median(self.offsets[known, step])
      difference = f'{offset:.3f}' if self.counted[step] else 'not counted'
      lines.append(
        f'| {EDGES_PX[step] + STEP_PX / 2:.2f} | {label:.3f} | {difference} | {self.at_ends[step]:.0%} | {known.sum()} '
        f'| {self.pixels[step]} |'
      )
    return '\n'.join(lines)

  def as_json(self) -> dict[str, Any]:
    """Numbers only; None for unknown values."""

    def medians(values: np.ndarray) -> list[float | None]:
      columns = (column[np.isfinite(column)] for column in values.T)
      return [float(np.median(column)) if len(column) else None for column in columns]

    low, high = (float(end) if np.isfinite(end) else None for end in self.interval)
    return {
      'offset_px': self.offset,
      'low_px': low,
      'high_px': high,
      'level': LEVEL,
      'stacks': self.stacks,
      'project_offset_px': DDFF_FOCUS_OFFSET_PX,
      'true_disparity_px': [float(x) for x in EDGES_PX[:-1] + STEP_PX / 2],
      'label_px': medians(self.labels),
      'truth_less_label_px': medians(self.offsets),
      'in_an_end_frame': [float(x) if np.isfinite(x) else None for x in self.at_ends],
      'pixels': self.pixels.tolist(),
      'counted': self.counted.tolist(),
    }


@jax.jit
def _sharpest_and_texture(images: Float[Array, 'N H W 3']) -> tuple[Float[Array, 'H W'], Float[Array, 'H W']]:
  """Position of the peak of the focus measure among the frames, 0 .. N - 1; and the standard deviation of the
  luminance.
  """
  response = classical.focus_measure(images, 1, WINDOW_PX, MARGIN_PX, 'ring_difference')
  return classical.gaussian_peak(response), jnp.std(images @ jnp.asarray(classical.LUMA, images.dtype), axis=0)


def _textured(example: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For textured pixels: [P] true disparity, label of the sharpest frame, and whether that is the first or last."""
  images = np.asarray(example['images'], np.float32) / 255
  place, texture = map(np.asarray, _sharpest_and_texture(images))
  inner = np.zeros(place.shape, bool)
  inner[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
  valid = inner & (np.asarray(example['valid']) > 0)
  if not valid.any():
    return np.zeros(0), np.zeros(0), np.zeros(0, bool)
  # Pixels that are equal in all frames have no peak.
  chosen = valid & (texture > 0) & (texture >= np.quantile(texture[valid], 1 - TEXTURED))
  focus = np.asarray(example['focus'], np.float64)
  place = place[chosen]
  label = np.interp(place, np.arange(len(focus)), focus)
  return np.asarray(example['target'], np.float64)[chosen], label, (place == 0) | (place == len(focus) - 1)


def measure(examples: Iterable[Mapping[str, Any]]) -> FocusMeasurement:
  """Measures the constant of a data set.

  Args:
    examples: `images`, `focus`, `target` and `valid` in the form of `tfds_ddff`, disparities in px.

  Raises:
    InputError: there are no textured pixels where the constant could be measured.
  """
  steps = len(EDGES_PX) - 1
  labels, offsets, pixels, ends = [], [], np.zeros(steps, int), np.zeros(steps, int)
  for example in examples:
    truth, label, at_end = _textured(example)
    step = np.searchsorted(EDGES_PX, truth, side='right') - 1
    row = np.full((2, steps), np.nan)
    for one in range(steps):
      inside = step == one
      if inside.sum() >= MIN_PIXELS:
        row[:, one] = np.median(label[inside]), np.median(truth[inside] - label[inside])
        pixels[one] += inside.sum()
        ends[one] += at_end[inside].sum()
    labels.append(row[0])
    offsets.append(row[1])
  labels, offsets = np.reshape(labels, (-1, steps)), np.reshape(offsets, (-1, steps))
  at_ends = np.where(pixels > 0, ends / np.maximum(pixels, 1), np.nan)
  counted = at_ends <= MAX_AT_ENDS  # False for NaN
  used = offsets[:, counted]
  used = used[np.isfinite(used).any(1)]
  if not len(used):
    raise InputError(
      f'{len(labels)} stacks: found no {MIN_PIXELS} textured pixels of similar depth that are in focus within the '
      'sweep, expected some'
    )
  interval = _interval(used) if len(used) > 1 else (float('nan'),) * 2
  return FocusMeasurement(labels, offsets, at_ends, pixels, counted, float(np.nanmedian(used)), interval, len(used))


def _interval(values: np.ndarray) -> tuple[float, float]:
  """Confidence interval of the median of all values [S, B], from stacks drawn with replacement."""
  rng = np.random.default_rng(0)
  medians = [np.nanmedian(values[rng.integers(len(values), size=len(values))]) for _ in range(RESAMPLES)]
  low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)


def train_examples(dataset: str, manual_dir: str | None, data_dir: str | None) -> Sequence[Mapping[str, Any]]:
  """The training split, from the published files or from a built data set.

  Raises:
    InputError: there is no training split, it is of another data set, or both or neither folder is given.
  """
  if dataset.partition('/')[0] != 'ddff12':
    raise InputError(f"--dataset is '{dataset}', expected ddff12, optionally with a config: ddff12/raw")
  if (manual_dir is None) == (data_dir is None):
    raise InputError(
      f'--manual_dir is {manual_dir} and --data_dir is {data_dir}, expected one of them: the published files, or a '
      'built data set'
    )
  if data_dir is not None:
    return load(dataset, 'train', data_dir)
  splits = find(dataset)[1].find_splits(Path(manual_dir).expanduser())
  if 'train' not in splits:
    raise InputError(f'{manual_dir}: found no split train of {dataset}, only {", ".join(splits)}')
  return _Files(splits['train'])


class _Files(Sequence):
  """Examples from the published files."""

  def __init__(self, split: Any):
    self._split = split

  def __len__(self) -> int:
    return len(self._split)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(index)
    return self._split.read(index)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise InputError(f'unexpected argument {argv[1]!r}; expected flags only, see --help')
  options = flags.FLAGS
  path = Path(options.out).expanduser() if options.out else None
  if path and (path.is_dir() or not path.parent.is_dir()):  # before the work
    raise InputError(f'--out is {path}, expected a file in an existing folder')
  examples = train_examples(options.dataset, options.manual_dir, options.data_dir)
  found = measure(tqdm(examples, desc=f'{options.dataset} train', unit='stack'))
  print(found.table())
  low, high = found.interval
  print(
    f'\nfocus = label + {found.offset:.4f} px ({LEVEL:.0%} interval {low:.4f} .. {high:.4f}, from {found.stacks} of '
    f'{len(examples)} stacks); optics.DDFF_FOCUS_OFFSET_PX is {DDFF_FOCUS_OFFSET_PX} px'
  )
  if path:
    text = json.dumps({'dataset': options.dataset, **found.as_json()}, indent=2, allow_nan=False) + '\n'
    try:
      write_whole(path, text)
    except OSError as error:
      raise InputError(f'{path}: cannot be written ({one_line(error)}), expected a writable folder') from error
    print(f'wrote {path}')


def run() -> None:
  """Entry point. Flags are defined here and not on import: other programs also have --data_dir."""
  flags.DEFINE_string('dataset', 'ddff12', 'ddff12, ddff12/scene_disjoint or ddff12/raw.')
  flags.DEFINE_string('manual_dir', None, 'Folder with the published files; only read.')
  flags.DEFINE_string('data_dir', None, 'Folder of the built data set, instead of --manual_dir.')
  flags.DEFINE_string('out', None, 'JSON file to write the numbers to.')
  run_program(main, 'tfds_ddff.ddff12.measure_focus')


if __name__ == '__main__':
  run()
