"""Renders focal stacks with true depth by ray tracing, for training (`config.data.raytraced`).

  pip install mitsuba
  python -m tfds_ddff.raytraced --out=data/raytraced/train --scenes=600 --textures=data/textures/train

Mitsuba 3 needs LLVM's library (Debian: libllvm19 or newer; DRJIT_LIBLLVM_PATH names another file); without it,
`--variant=scalar_rgb` renders at a fraction of the speed. Each scene is a file of 12 MB with its number as name
(`data.raytraced` lists the contents) and takes ten seconds of a CPU core. Scenes that the folder already holds are
kept, so a stopped program continues where it was, and several programs can share the work with `--first`. At the end
a picture of the first scenes is written. Exit status: 0; 1 if Mitsuba cannot run; 2 for invalid input; 130 if
interrupted; with one line on stderr.
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from tqdm import tqdm

from focal_jax.command_line import run_program
from focal_jax.data.raytraced import SUFFIX, RaytracedScenes
from focal_jax.data.rgbd import read_colour
from focal_jax.data.texture_tiles import find_images
from focal_jax.errors import RunError, one_line
from focal_jax.files.outputs import PARTIAL, check_output
from focal_jax.files.pictures import Panel, contact_sheet
from focal_jax.simulate.sensor import GAMMA

VARIANTS = ('llvm_ad_rgb', 'scalar_rgb')
CONTACT_SHEET = 'scenes.png'
PICTURED = 8  # scenes in the contact sheet


def render_scenes(out: Path, numbers: range, textures: str, variant: str = VARIANTS[0]) -> int:
  """Renders the scenes with these numbers that `out` does not hold yet; returns how many those were.

  Args:
    out: folder for the scenes; created if it does not exist.
    numbers: of the scenes; a number determines its scene.
    textures: 'folder:DIR' with photographs.
    variant: of Mitsuba, one of `VARIANTS`.

  Raises:
    InputError: no photographs, or `out` cannot be written to.
    RunError: Mitsuba is not installed or cannot start.
  """
  paths = find_images('--textures', textures)
  check_output(out, overwrite=True)
  _start_mitsuba(variant)
  from tfds_ddff.raytraced.render import render_scene  # here, because it needs a variant of Mitsuba

  photographs = [read_colour(path) for path in paths]
  out.mkdir(parents=True, exist_ok=True)
  wanted = [number for number in numbers if not (out / f'{number:05}{SUFFIX}').exists()]
  for number in tqdm(wanted, desc='scenes', unit='scene'):
    scene, path = render_scene(number, photographs), out / f'{number:05}{SUFFIX}'
    partial = path.with_name(path.name + PARTIAL)
    with partial.open('wb') as file:
      np.savez(file, **scene)
    partial.replace(path)
  return len(wanted)


def _start_mitsuba(variant: str) -> None:
  try:
    import mitsuba
  except ImportError as error:
    raise RunError('found no package mitsuba, which renders the scenes; try: pip install mitsuba') from error
  try:
    mitsuba.set_variant(variant)
    mitsuba.load_dict({'type': 'sphere'})
  except Exception as error:  # whatever its compiler raises
    raise RunError(f'Mitsuba cannot run as {variant} ({one_line(error)}), see --help') from error
  mitsuba.set_log_level(mitsuba.LogLevel.Error)


def picture(out: Path) -> Path:
  """Writes a contact sheet of the first scenes: far, middle and near focus, and depth."""
  scenes = RaytracedScenes(out)
  rows = []
  for index in range(min(PICTURED, len(scenes))):
    scene = scenes[index]
    light, focus = scene['light'][0], scene['focus'][0]
    display = np.clip(light.astype(np.float32), 0, 1) ** (1 / GAMMA)
    planes = (0, len(focus) // 2, len(focus) - 1)
    depth = (scene['inverse_depth'] - focus[0]) / (focus[-1] - focus[0])
    row = [Panel(f'scene {scene["name"]}, frame {plane + 1}', display[plane]) for plane in planes]
    rows.append([*row, Panel('inverse depth', depth, 'share of the sweep', (-0.2, 1.2))])
  path = out / CONTACT_SHEET
  contact_sheet(path, rows)
  return path


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'found arguments {argv[1:]}, expected flags only')
  values = flags.FLAGS
  out, numbers = Path(values.out).expanduser(), range(values.first, values.first + values.scenes)
  count = render_scenes(out, numbers, f'folder:{values.textures}', values.variant)
  print(f'{out}: {count} scenes rendered, {len(numbers) - count} were there; see {picture(out)}')


def run() -> None:
  """Entry point. Flags are global, so they are defined here and not on import."""
  flags.DEFINE_string('out', None, 'Folder for the scenes; created if it does not exist.', required=True)
  flags.DEFINE_integer('scenes', 600, 'Number of scenes.', lower_bound=1)
  flags.DEFINE_integer('first', 0, 'Number of the first scene. Equal numbers give equal scenes.', lower_bound=0)
  flags.DEFINE_string('textures', 'data/textures/train', 'Folder of photographs: python -m tfds_ddff.textures.')
  flags.DEFINE_enum('variant', VARIANTS[0], VARIANTS, 'Variant of Mitsuba: compiled, or slow but without LLVM.')
  run_program(main, 'tfds_ddff.raytraced')


if __name__ == '__main__':
  run()
