"""Stacks per second of the input pipeline, beside the same work through tf.data where TensorFlow is installed.

  python -m benchmarks.pipeline [--rounds=5] [--batches=40] [--flat=10000]

Full DDFF-12 frames, (10, 383, 552, 3) uint8 with float32 target and valid mask, shuffled, cropped at random to 224 px,
in batches of 4, host only. The files are made here, of smooth noise, in a temporary folder (about 0.6 GB), and stay in
the page cache, so the disk is not measured. Both pipelines run in turns in one process. `--flat=N` then reads N batches
and reports the growth of the process's memory.
"""

import argparse
import importlib.util
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from absl import flags
from scipy.ndimage import gaussian_filter

import tfds_ddff
from focal_jax.data.pipeline import BatchSettings, stack_batches
from tfds_ddff.build import build

EXAMPLES, FRAMES, HEIGHT, WIDTH = 32, 10, 383, 552
CROP, BATCH = 224, 4


def make_data(folder: Path) -> None:
  """The data set `ddff12` in `folder`/data, from a file in the official layout."""
  rng = np.random.default_rng(0)
  picture = gaussian_filter(rng.random((HEIGHT + 100, WIDTH + 100, 3)), (2, 2, 0))
  picture = (picture - picture.min()) / np.ptp(picture) * 240
  with h5py.File(folder / 'ddff-dataset-trainval.h5', 'w') as file:
    for split, count in (('train', EXAMPLES), ('val', 1)):
      stack = file.create_dataset(f'stack_{split}', (count, FRAMES, HEIGHT, WIDTH, 3), np.uint8)
      disparity = file.create_dataset(f'disp_{split}', (count, HEIGHT, WIDTH), np.float64)
      for index in range(count):
        top, left = rng.integers(100, size=2)
        crop = picture[top : top + HEIGHT, left : left + WIDTH]
        stack[index] = crop + rng.integers(0, 15, (FRAMES, HEIGHT, WIDTH, 1))
        disparity[index] = np.where(rng.random((HEIGHT, WIDTH)) < 0.1, 0, rng.uniform(0.02, 0.28, (HEIGHT, WIDTH)))
  build('ddff12', folder, folder / 'data')


class Repeated(Sequence):
  """As many examples as the light fields of DDFF-12, of which only `EXAMPLES` differ."""

  def __init__(self, source: Sequence):
    self.source = source

  def __len__(self) -> int:
    return 600

  def __getitem__(self, index: int) -> dict:
    return self.source[index % len(self.source)]


def ours(folder: Path) -> Iterator:
  source = Repeated(tfds_ddff.load('ddff12', 'train', folder / 'data'))
  return stack_batches([(source, 1.0)], BatchSettings(batch_size=BATCH, crop_px=CROP, min_valid=0.8)).iterate()


def tf_data(folder: Path) -> Iterator:
  """The usual tf.data pipeline on the same records in TFRecord files, parallelism left to AUTOTUNE."""
  import tensorflow as tf

  path = str(folder / 'train.tfrecord')
  with tf.io.TFRecordWriter(path) as file:
    for record in tfds_ddff.load('ddff12', 'train', folder / 'data').records:
      file.write(bytes(record))
  names = {'images/value': tf.uint8, 'target/value': tf.float32, 'valid/value': tf.float32}

  def parse(record):
    stored = tf.io.parse_single_example(record, {name: tf.io.FixedLenFeature((), tf.string) for name in names})
    images, target, valid = (tf.io.decode_raw(stored[name], dtype) for name, dtype in names.items())
    top = tf.random.uniform((), 0, HEIGHT - CROP + 1, tf.int32)
    left = tf.random.uniform((), 0, WIDTH - CROP + 1, tf.int32)
    window = np.s_[top : top + CROP, left : left + CROP]
    return (
      tf.reshape(images, (FRAMES, HEIGHT, WIDTH, 3))[:, *window],
      tf.reshape(target, (HEIGHT, WIDTH))[window],
      tf.reshape(valid, (HEIGHT, WIDTH))[window],
    )

  data = tf.data.TFRecordDataset(path).repeat().shuffle(EXAMPLES, seed=0)
  data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2)
  return data.as_numpy_iterator()


def cpu_seconds() -> float:
  usage = resource.getrusage(resource.RUSAGE_SELF)
  return usage.ru_utime + usage.ru_stime


def resident_mb() -> float:
  pages = int(Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize() / 1e6


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--batches', type=int, default=40, help='of each round')
  parser.add_argument('--flat', type=int, default=0, help='batches over which to watch the memory (Linux)')
  options = parser.parse_args()
  flags.FLAGS.mark_as_parsed()  # grain reads absl flags

  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    make_data(folder)
    pipelines = {'focal_jax': ours}
    if importlib.util.find_spec('tensorflow'):
      pipelines['tf.data'] = tf_data
    else:
      print('TensorFlow is not installed: nothing to compare with')
    iterators = {name: make(folder) for name, make in pipelines.items()}
    figures = {name: [] for name in iterators}
    for round_index in range(options.rounds + 1):  # the first warms up
      for name, iterator in iterators.items():
        # The other one fills its buffers and then waits. What this one has buffered meanwhile does not count.
        for _ in range(20):
          next(iterator)
        start, cpu = time.perf_counter(), cpu_seconds()
        for _ in range(options.batches):
          next(iterator)
        stacks = options.batches * BATCH
        if round_index:
          figures[name].append((stacks / (time.perf_counter() - start), 1e3 * (cpu_seconds() - cpu) / stacks))
    print('| pipeline | stacks/s, median (range) | CPU ms a stack |\n| --- | ---: | ---: |')
    for name, rounds in figures.items():
      speed, cost = zip(*rounds, strict=True)
      print(f'| {name} | {statistics.median(speed):.0f} ({min(speed):.0f} to {max(speed):.0f}) | '
            f'{statistics.median(cost):.1f} |')  # fmt: skip
    if len(figures) == 2:
      first, second = (statistics.median([speed for speed, _ in rounds]) for rounds in figures.values())
      print(f'focal_jax : tf.data = {first / second:.2f}')

    if options.flat:
      iterator, start = ours(folder), time.perf_counter()
      for batch in range(options.flat):
        next(iterator)
        if batch in (200, options.flat // 2, options.flat - 1):
          print(f'after {batch + 1} batches: {resident_mb():.0f} MB, {time.perf_counter() - start:.0f} s')
          sys.stdout.flush()


if __name__ == '__main__':
  main()
