"""Stacks per second of the input pipeline, next to the same work with tf.data if TensorFlow is installed.

  python -m benchmarks.pipeline [--rounds=5] [--batches=40] [--flat=10000]

Full DDFF-12 frames, (10, 383, 552, 3) uint8 with float32 target and valid mask, shuffled, randomly cropped to 224 px,
in batches of 4, on the host only. The files are generated from smooth noise in a temporary folder (about 0.6 GB) and
stay in the page cache, so the disk is not measured. The pipelines run in turns in one process. `--flat=N` then reads N
batches and reports the growth of the process's memory.
"""

import argparse
import dataclasses
import importlib.util
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from absl import flags
from scipy.ndimage import gaussian_filter

import tfds_ddff
from benchmarks.summary import median_and_range
from focal_jax.data.pipeline import BatchSettings, stack_batches
from tfds_ddff.build import build

FRAMES, BATCH = 10, 4


@dataclasses.dataclass(frozen=True)
class Size:
  """Size of the stacks in the files, and of the crops; `light_fields` is the apparent number of examples."""

  examples: int = 32
  height: int = 383
  width: int = 552
  crop: int = 224
  light_fields: int = 600


def make_data(folder: Path, size: Size) -> None:
  """Generates the data set `ddff12` in `folder`/data, from a file in the official layout."""
  height, width = size.height, size.width
  rng = np.random.default_rng(0)
  picture = gaussian_filter(rng.random((height + 100, width + 100, 3)), (2, 2, 0))
  picture = (picture - picture.min()) / np.ptp(picture) * 240
  with h5py.File(folder / 'ddff-dataset-trainval.h5', 'w') as file:
    for split, count in (('train', size.examples), ('val', 1)):
      stack = file.create_dataset(f'stack_{split}', (count, FRAMES, height, width, 3), np.uint8)
      disparity = file.create_dataset(f'disp_{split}', (count, height, width), np.float64)
      for index in range(count):
        top, left = rng.integers(100, size=2)
        crop = picture[top : top + height, left : left + width]
        stack[index] = crop + rng.integers(0, 15, (FRAMES, height, width, 1))
        disparity[index] = np.where(rng.random((height, width)) < 0.1, 0, rng.uniform(0.02, 0.28, (height, width)))
  build('ddff12', folder, folder / 'data')


class Figures(NamedTuple):
  """Results of one round."""

  seconds: float
  cpu_seconds: float
  stacks: int


class Repeated(Sequence):
  """As many examples as DDFF-12 has light fields, of which only some differ."""

  def __init__(self, source: Sequence, length: int):
    self.source, self.length = source, length

  def __len__(self) -> int:
    return self.length

  def __getitem__(self, index: int) -> dict:
    return self.source[index % len(self.source)]


def ours(folder: Path, size: Size) -> Iterator:
  source = Repeated(tfds_ddff.load('ddff12', 'train', folder / 'data'), size.light_fields)
  return stack_batches([(source, 1.0)], BatchSettings(batch_size=BATCH, crop_px=size.crop, min_valid=0.8)).iterate()


def tf_data(folder: Path, size: Size) -> Iterator:
  """The usual tf.data pipeline on the same records in TFRecord files, with parallelism chosen by AUTOTUNE."""
  import tensorflow as tf

  path = str(folder / 'train.tfrecord')
  with tf.io.TFRecordWriter(path) as file:
    for record in tfds_ddff.load('ddff12', 'train', folder / 'data').records:
      file.write(bytes(record))
  names = {'images/value': tf.uint8, 'target/value': tf.float32, 'valid/value': tf.float32}

  def parse(record):
    stored = tf.io.parse_single_example(record, {name: tf.io.FixedLenFeature((), tf.string) for name in names})
    images, target, valid = (tf.io.decode_raw(stored[name], dtype) for name, dtype in names.items())
    top = tf.random.uniform((), 0, size.height - size.crop + 1, tf.int32)
    left = tf.random.uniform((), 0, size.width - size.crop + 1, tf.int32)
    window = np.s_[top : top + size.crop, left : left + size.crop]
    return (
      tf.reshape(images, (FRAMES, size.height, size.width, 3))[:, *window],
      tf.reshape(target, (size.height, size.width))[window],
      tf.reshape(valid, (size.height, size.width))[window],
    )

  data = tf.data.TFRecordDataset(path).repeat().shuffle(size.examples, seed=0)
  data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2)
  return data.as_numpy_iterator()


def cpu_seconds() -> float:
  usage = resource.getrusage(resource.RUSAGE_SELF)
  return usage.ru_utime + usage.ru_stime


def resident_mb() -> float:
  pages = int(Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize() / 1e6


def measure(folder: Path, size: Size, rounds: int, batches: int, peer: bool = True) -> dict[str, list[Figures]]:
  """Results of each round for our pipeline and, if TensorFlow is installed, for tf.data, in turns."""
  pipelines = {'focal_jax': ours}
  if peer and importlib.util.find_spec('tensorflow'):
    pipelines['tf.data'] = tf_data
  iterators = {name: make(folder, size) for name, make in pipelines.items()}
  figures = {name: [] for name in iterators}
  for round_index in range(rounds + 1):  # the first warms up
    for name, iterator in iterators.items():
      # Each pipeline fills its buffers while the other runs; what was buffered does not count.
      for _ in range(20):
        next(iterator)
      start, cpu = time.perf_counter(), cpu_seconds()
      for _ in range(batches):
        next(iterator)
      if round_index:
        figures[name].append(Figures(time.perf_counter() - start, cpu_seconds() - cpu, batches * BATCH))
  return figures


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--batches', type=int, default=40, help='batches per round')
  parser.add_argument('--flat', type=int, default=0, help='batches over which to measure the growth of memory (Linux)')
  options = parser.parse_args()
  flags.FLAGS.mark_as_parsed()  # grain reads absl flags

  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    size = Size()
    make_data(folder, size)
    if not importlib.util.find_spec('tensorflow'):
      print('TensorFlow is not installed: nothing to compare with')
    figures = measure(folder, size, options.rounds, options.batches)
    print('| pipeline | stacks/s, median (range) | CPU ms a stack |\n| --- | ---: | ---: |')
    medians = []
    for name, rounds in figures.items():
      speed, cost = [f.stacks / f.seconds for f in rounds], [1e3 * f.cpu_seconds / f.stacks for f in rounds]
      medians.append(statistics.median(speed))
      print(f'| {name} | {median_and_range(speed)} | {statistics.median(cost):.1f} |')
    if len(medians) == 2:
      print(f'focal_jax : tf.data = {medians[0] / medians[1]:.2f}')

    if options.flat:
      iterator, start = ours(folder, size), time.perf_counter()
      for batch in range(options.flat):
        next(iterator)
        if batch in (200, options.flat // 2, options.flat - 1):
          print(f'after {batch + 1} batches: {resident_mb():.0f} MB, {time.perf_counter() - start:.0f} s')
          sys.stdout.flush()


if __name__ == '__main__':
  main()
