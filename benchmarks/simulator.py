"""Time per simulated stack, next to the published method on the same RGB-D photograph.

  python -m benchmarks.simulator [--repeats=7] [--published=2]

A [10, 224, 352, 3] stack of a phone (pixel_4_xl, its own sweep) with motion and noise, from a smooth synthetic image
with depth. The published method (Won and Jeon, ECCV 2022, as in their simulator) moves the image for every frame, then
loops over 2000 depth planes and takes the pixels of each from the image filtered with a disc of the plane's circle of
confusion. It uses NumPy and SciPy, without noise and ground truth, which ours includes. Also procedural scenes, and a
batch of four.
"""

import argparse
import time
from collections.abc import Callable

import jax
import numpy as np
from jax import random
from scipy import ndimage

from focal_jax import optics
from focal_jax.simulate.cameras import CAMERAS, SweepSettings
from focal_jax.simulate.sensor import SensorSettings
from focal_jax.simulate.stacks import SimulatorSettings, simulate_batch, simulate_rgbd

PHOTOGRAPH = 'photograph with depth'
PLANES = 2000
NEAREST_M, FARTHEST_M = 0.1, 1.1
PHONE = CAMERAS['pixel_4_xl']
SWEEP = SweepSettings(
  cameras=('pixel_4_xl',), far_dpt=None, range_dpt=None, blur_px=None, spacing='camera', uneven=0.0, aligned=0.0
)


def make_settings(frames: int = 10, height: int = 224, width: int = 352) -> SimulatorSettings:
  sensor = SensorSettings(jpeg_quality=None)
  return SimulatorSettings(frames, height, width, margin_px=16, sweep=SWEEP, sensor=sensor)


def picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Smooth colour 0 .. 1, and depth in metres with steps and slopes."""
  rng = np.random.default_rng(0)
  rgb = np.clip(0.5 + 2 * ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (2, 2, 0)), 0, 1)
  depth = ndimage.gaussian_filter(rng.normal(size=(height, width)), 12)
  depth = (depth - depth.min()) / np.ptp(depth)
  depth = (np.round(3 * depth) / 3 + 0.3 * depth) / 1.3
  return rgb.astype(np.float32), (NEAREST_M + (FARTHEST_M - NEAREST_M) * depth).astype(np.float32)


def published(rgb: np.ndarray, depth_m: np.ndarray, frames: int) -> np.ndarray:
  """[N, H, W, 3]: the frames of the phone's sweep, focused at even steps in dioptres, zoomed and shifted."""
  height, width = depth_m.shape
  rng = np.random.default_rng(0)
  limits = np.linspace(NEAREST_M, FARTHEST_M, PLANES + 1, dtype=np.float32)
  limits[-1] += 1e-6
  px_per_m = rgb.shape[1] / PHONE.sensor_width_px / PHONE.pixel_pitch_m
  stack = []
  focus_m_all = 1 / PHONE.sweep_dpt(frames)
  for focus_m, fov in zip(
    focus_m_all, np.asarray(optics.relative_field_of_view(PHONE.focal_length_m, focus_m_all)), strict=True
  ):
    places = np.meshgrid(*((np.arange(n) - n / 2) / fov + n / 2 + rng.normal() for n in (height, width)), indexing='ij')
    moved = [ndimage.map_coordinates(rgb[..., c], places, order=1, mode='nearest') for c in range(3)]
    middle = (limits[1:] + limits[:-1]) / 2
    diameter = np.asarray(optics.circle_of_confusion(PHONE.focal_length_m, PHONE.f_number, focus_m, middle)) * px_per_m
    sides = np.maximum(3, 2 * np.round(diameter / 2).astype(int) + 1)
    frame, filtered = np.empty_like(rgb), {}
    for plane in range(PLANES):
      mask = (depth_m >= limits[plane]) & (depth_m < limits[plane + 1])
      if not mask.any():
        continue
      side = int(sides[plane])
      if side not in filtered:
        offsets = np.arange(side) - side // 2
        disc = (offsets[:, None] ** 2 + offsets**2 <= (side // 2) ** 2).astype(np.float32)
        channels = [ndimage.correlate(channel, disc / disc.sum(), mode='nearest') for channel in moved]
        filtered[side] = np.stack(channels, -1)
      frame[mask] = filtered[side][mask]
    stack.append(frame)
  return np.stack(stack)


def make_calls(settings: SimulatorSettings) -> dict[str, tuple[Callable, int]]:
  """The functions to measure, not yet compiled, and the number of stacks that each makes."""
  rgb, depth_m = picture(*settings.canvas)
  rgbd = jax.jit(lambda key: simulate_rgbd(key, rgb, depth_m, settings))
  scenes = jax.jit(lambda key: simulate_batch(key[None], settings))
  four = jax.jit(lambda key: simulate_batch(jax.random.split(key, 4), settings))
  key = random.key(0)
  return {
    PHOTOGRAPH: (lambda: rgbd(key), 1),
    'procedural, 10 surfaces': (lambda: scenes(key), 1),
    'procedural, a batch of 4': (lambda: four(key), 4),
  }


def make_published(settings: SimulatorSettings) -> Callable:
  """The published method on the same photograph."""
  rgb, depth_m = picture(*settings.canvas)
  height, width, margin = settings.height_px, settings.width_px, settings.margin_px
  inner = np.s_[margin : margin + height, margin : margin + width]
  small_rgb, small_depth = np.ascontiguousarray(rgb[inner]), np.ascontiguousarray(depth_m[inner])
  return lambda: published(small_rgb, small_depth, settings.num_frames)


def seconds(call, repeats: int) -> list[float]:
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
  return times


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--published', type=int, default=2, help='timed calls of the published method')
  options = parser.parse_args()
  settings = make_settings()
  print(f'[10, {settings.height_px}, {settings.width_px}, 3], {jax.devices()[0]}, jax {jax.__version__}')
  print('| | first call, s | ms a stack, median | fastest | slowest |\n| --- | ---: | ---: | ---: | ---: |')
  medians = {}
  for name, (call, stacks) in make_calls(settings).items():
    first, *rest = (1e3 * t / stacks for t in seconds(call, options.repeats + 1))
    medians[name] = np.median(rest)
    print(f'| {name} | {first * stacks / 1e3:.1f} | {medians[name]:.0f} | {min(rest):.0f} | {max(rest):.0f} |')
  if options.published:
    times = [1e3 * t for t in seconds(make_published(settings), options.published)]
    print(f'| published method | | {np.median(times):.0f} | {min(times):.0f} | {max(times):.0f} |')
    print(f'published : {PHOTOGRAPH} = {np.median(times) / medians[PHOTOGRAPH]:.1f}')


if __name__ == '__main__':
  main()
