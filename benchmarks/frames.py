"""Time, memory and sharpness of `predict` on whole frames, from program start to the last file, next to
align_image_stack (Hugin) and enfuse, which produce aligned frames and an all-in-focus image but no depth.

python -m benchmarks.frames --stack=examples/pcb --runs=3 [--cores=1] [--flags=--depth_side=0]
python -m benchmarks.frames --size=10,3000,4000 --methods=network

With `--size` the stack is enlarged to frames of this height and width; frames in between are mixed from their
neighbours. Each method runs in its own process, in turns; the first turn, which compiles, does not count. Programs that
are not installed are skipped. Sharpness is the mean absolute Laplacian of the luminance (0 .. 255) of the all-in-focus
image, without a border of `BORDER` of its size.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image
from scipy import ndimage

from benchmarks.summary import median_and_range
from focal_jax.data.formats import is_image
from focal_jax.data.names import natural_order
from focal_jax.focus.classical import LUMA

_STACK = flags.DEFINE_string('stack', 'examples/pcb', 'Folder of a focal stack.')
_RUNS = flags.DEFINE_integer('runs', 3, 'Timed runs of each method.')
_SIZE = flags.DEFINE_list('size', [], 'Number of frames, their height and width, px. Default: as they are.')
_METHODS = flags.DEFINE_list('methods', ['network', 'classical', 'others'], 'What to measure.')
_CORES = flags.DEFINE_integer('cores', None, 'Number of CPU cores to use. Default: all.')
_FLAGS = flags.DEFINE_multi_string('flags', ['--near_to_far'], 'Additional flags for predict, each as --flags=FLAG.')
BORDER = 0.05


def enlarged(frames: list[Path], size: tuple[int, int, int], folder: Path) -> list[Path]:
  """Writes a stack of `size`, frames, height and width, from the frames of another; returns its paths."""
  count, height, width = size
  folder.mkdir()
  found = []
  for index, place in enumerate(np.linspace(0, len(frames) - 1, count)):
    before = min(int(place), len(frames) - 2)
    with Image.open(frames[before]) as first, Image.open(frames[before + 1]) as second:
      mixed = Image.blend(first.convert('RGB'), second.convert('RGB'), place - before)
    found.append(folder / f'frame_{index:03d}.jpg')
    mixed.resize((width, height), Image.Resampling.LANCZOS).save(found[-1], quality=95)
  return found


def commands(frames: list[Path], out: Path) -> dict[str, tuple[list[list[str]], Path]]:
  """Commands of each method, and the all-in-focus image that they write."""
  found = {}
  for method in (method for method in ('network', 'classical') if method in _METHODS.value):
    folder = out / method
    given = ['--max_side=0', f'--method={method}', f'--out={folder}', '--overwrite', *_FLAGS.value]
    predict = [sys.executable, '-m', 'focal_jax.main', 'predict', str(frames[0].parent), *given]
    found[f'predict --method={method}'] = [predict], folder / 'all_in_focus.png'
  if 'others' in _METHODS.value and shutil.which('align_image_stack') and shutil.which('enfuse'):
    aligned = [str(out / f'aligned_{n:04d}.tif') for n in range(len(frames))]
    align = ['align_image_stack', '-m', '-a', str(out / 'aligned_'), *map(str, frames)]
    weights = ['--exposure-weight=0', '--saturation-weight=0', '--contrast-weight=1', '--hard-mask']
    fuse = ['enfuse', *weights, '-o', str(out / 'enfuse.tif'), *aligned]
    found['align_image_stack, enfuse'] = [align, fuse], out / 'enfuse.tif'
  return found


def run(command: list[str]) -> tuple[float, float, float]:
  """Wall time, s; CPU time, s; and peak memory, GiB, of a command."""
  began = time.perf_counter()
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
  message = process.stderr.read()
  _, status, usage = os.wait4(process.pid, 0)
  seconds = time.perf_counter() - began
  if status:
    raise RuntimeError(f'{command[0]} failed: {message.decode(errors="replace")[-2000:]}')
  return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _RSS_UNIT / 2**30


_RSS_UNIT = 1 if sys.platform == 'darwin' else 1024


def sharpness(path: Path) -> float:
  with Image.open(path) as image:
    luma = np.asarray(image.convert('RGB'), np.float32) @ np.array(LUMA, np.float32)
  rows, columns = (round(BORDER * length) for length in luma.shape)
  return float(np.abs(ndimage.laplace(luma))[rows:-rows, columns:-columns].mean())


def main(argv: list[str]) -> None:
  del argv
  if _CORES.value:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _CORES.value])
  frames = natural_order(path for path in Path(_STACK.value).iterdir() if is_image(path))
  with tempfile.TemporaryDirectory() as folder:
    if _SIZE.value:
      frames = enlarged(frames, tuple(map(int, _SIZE.value)), Path(folder) / 'enlarged')
    with Image.open(frames[0]) as image:
      size = image.size
    methods = commands(frames, Path(folder))
    measured = {name: [] for name in methods}
    for turn in range(_RUNS.value + 1):
      for name, (parts, _) in methods.items():
        parts = np.array([run(part) for part in parts])
        if turn:
          measured[name].append((*parts[:, :2].sum(0), parts[:, 2].max()))
    sharp = {name: sharpness(path) for name, (_, path) in methods.items()}
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  print(f'{len(frames)} frames of {size[0]} x {size[1]} px, {cores} cores, median (range) of {_RUNS.value} runs')
  print('| | s | CPU s | peak, GiB | sharpness |')
  print('| --- | ---: | ---: | ---: | ---: |')
  for name, runs in measured.items():
    wall, cpu, peak = zip(*runs, strict=True)
    cpu, peak = np.median(cpu), np.median(peak)
    print(f'| {name} | {median_and_range(wall, 1)} | {cpu:.1f} | {peak:.2f} | {sharp[name]:.2f} |')


if __name__ == '__main__':
  app.run(main)
