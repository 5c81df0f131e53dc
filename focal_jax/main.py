"""The command line: `focal-jax MODE ...`, `python -m focal_jax.main MODE ...`, or the same with --mode=MODE.

Modes import what they need when they run: `--help`, and an error in the flags, are there at once.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from focal_jax.command_line import Mode, run_modes
from focal_jax.errors import InputError

ABOUT = 'Depth from a stack of photographs of one scene with different focus.'

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'Recipe: a file, or the name of one that ships, perhaps with a variant: configs/ddff12.py, simulated:smoke. Any '
  'field of it can be set by a flag of its own: --config.optimizer.learning_rate=1e-3.',
)
_MODE = flags.DEFINE_string('mode', None, 'What to do, in place of the first word.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the results.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace results that are in --out already.')
_WEIGHTS = flags.DEFINE_string(
  'weights', None, 'A .npz that training wrote, or a published .pth. Default: the weights that ship.'
)

# train and sweep
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run. A run that is there already is continued.')
_PROFILE = flags.DEFINE_list('profile', None, 'First and last step of a trace for jax.profiler: 20,30.')
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'This is one of several processes that Cloud TPU, GKE, SLURM or Open MPI started.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of the first process, for several processes that none of these started.'
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes there are, with --coordinator.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which one this process is, from 0, with --coordinator.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of each variant, with seeds from that of the config on.')
_DEVICES = flags.DEFINE_list('devices', [], 'Numbers of the GPUs or TPU chips to use. Default: all.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Only list the runs and how far they are.')

# predict
_METHOD = flags.DEFINE_string('method', 'network', 'network, classical, or classical:MEASURE, which need no weights.')
_STACK = flags.DEFINE_list('stack', None, 'Folder with the frames of one stack, or the frames: a.jpg,b.jpg,...')
_ALIGN = flags.DEFINE_enum('align', None, ('measured', 'network', 'metadata', 'off'), 'How frames are aligned.')
_MOTION = flags.DEFINE_string('motion', None, 'motion.json of an earlier prediction, in place of --align.')
_ONLY_ALIGN = flags.DEFINE_bool('only_align', False, 'Write aligned frames and motion.json, no depth.')
_NEAR_TO_FAR = flags.DEFINE_bool('near_to_far', False, 'Without focus distances, the first frame is the nearest.')
_FAR_TO_NEAR = flags.DEFINE_bool(
  'far_to_near', False, 'Without focus distances, the first frame is the farthest. Default: as the zoom tells.'
)
_EXIF_DIOPTRES = flags.DEFINE_bool(
  'exif_dioptres', False, 'SubjectDistance in EXIF is in dioptres, not in metres as its standard says.'
)
_CHANNEL = flags.DEFINE_integer(
  'channel', None, 'Of a TIFF of several channels, counted from 0. Default: the one with most structure.'
)
_REGION = flags.DEFINE_list('region', None, 'Part of the frames, in px: left,top,width,height.')
_MAX_SIDE = flags.DEFINE_integer(
  'max_side', 1024, 'Longer side of what is written, px; frames are reduced to it. 0: that of the frames.'
)
_DEPTH_SIDE = flags.DEFINE_integer(
  'depth_side',
  1024,
  'Longer side that frames are reduced to before depth is computed, px; it is brought up to --max_side by the '
  'all-in-focus image. 0: depth is computed in full size.',
)
_TILE_PX = flags.DEFINE_integer(
  'tile_px', None, 'Largest side of the tiles that large frames are predicted in, px. Smaller tiles take less memory.'
)
_UNIT = flags.DEFINE_enum(
  'unit',
  None,
  ('metres', 'dioptres', 'index'),
  'Of depth: metres, dioptres or index. Default: as the metadata have it.',
)
_MIN_CONFIDENCE = flags.DEFINE_float('min_confidence', 0.1, 'Least confidence of a point in cloud and mesh, 0 .. 1.')

# the others
_METHODS = flags.DEFINE_list(
  'methods',
  None,
  'Weights files, shipped, classical, classical:MEASURE or constant; LABEL=METHOD gives one a name.',
)
_TEST_FILE = flags.DEFINE_string('test_file', None, "DDFF-12's ddff-dataset-test.h5.")
_CORRECTED_FOCUS = flags.DEFINE_bool(
  'corrected_focus', False, "Correct DDFF-12's focus labels, for weights that were not trained on it."
)
_PARTIAL = flags.DEFINE_bool('partial', False, 'Accept a file of fewer stacks, for a trial.')
_ARGUMENTS = flags.DEFINE_list(
  'arguments', [], 'Arguments of the model that the .pth does not tell: depth.differential=False,channels=BGR.'
)
_PRESETS = flags.DEFINE_list('presets', [], 'Cameras, each with its own sweep. Default: those of the config.')
_COUNT = flags.DEFINE_integer('count', 4, 'Number of stacks, for each preset.')
_RGBD = flags.DEFINE_string('rgbd', None, 'Photographs with depth: folder:DIR or a data set. Default: random scenes.')
_SEED = flags.DEFINE_integer('seed', 0, 'Another seed gives other stacks.')


def _default_config() -> ConfigDict:
  """Of the modes that need no recipe."""
  from focal_jax.config import to_config_dict

  return to_config_dict()


def _train() -> None:
  from focal_jax.training import parallel
  from focal_jax.training.loop import train_and_evaluate

  profile = _profile()
  if _DISTRIBUTED.value or any(flag.value is not None for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID)):
    parallel.start_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  train_and_evaluate(_CONFIG.value, _WORKDIR.value, profile)


def _sweep() -> int:
  from focal_jax.sweeps.sweep import load_sweep, run_sweep

  path = config_flags.get_config_filename(flags.FLAGS['config'])
  return run_sweep(
    _CONFIG.value,
    load_sweep(path),
    Path(_WORKDIR.value),
    title=path,
    seeds=_SEEDS.value,
    chosen_devices=_DEVICES.value,
    dry_run=_DRY_RUN.value,
  )


def _evaluate() -> None:
  from focal_jax.evaluation.evaluator import evaluate

  config = _CONFIG.value or _default_config()
  evaluate(config, _WEIGHTS.value, Path(_OUT.value), overwrite=_OVERWRITE.value)


def _compare() -> None:
  from focal_jax.evaluation.compare import compare

  config = _CONFIG.value or _default_config()
  compare(config, _METHODS.value, Path(_OUT.value), overwrite=_OVERWRITE.value)


def _submit() -> None:
  from focal_jax.evaluation.submission import submit

  submit(
    Path(_TEST_FILE.value),
    Path(_OUT.value),
    weights=_WEIGHTS.value,
    corrected_focus=_CORRECTED_FOCUS.value,
    partial=_PARTIAL.value,
    overwrite=_OVERWRITE.value,
  )


def _simulate() -> None:
  from focal_jax.data.rgbd import open_rgbd
  from focal_jax.simulate.stacks import settings_from
  from focal_jax.simulate.write_stacks import simulate_stacks

  config = _CONFIG.value or _default_config()
  simulate_stacks(
    settings_from(config.simulator),
    Path(_OUT.value),
    presets=_PRESETS.value,
    count=_COUNT.value,
    photographs=open_rgbd(_RGBD.value, config.data.data_dir) if _RGBD.value else None,
    seed=_SEED.value,
    overwrite=_OVERWRITE.value,
  )


def _export() -> None:
  from focal_jax.api import load
  from focal_jax.prediction.export import export_model

  align = _ALIGN.value or 'network'
  export_model(load(_WEIGHTS.value), Path(_OUT.value), align=align, overwrite=_OVERWRITE.value)


def _convert() -> None:
  from focal_jax.prediction.convert import convert

  convert(_WEIGHTS.value, _ARGUMENTS.value, Path(_OUT.value), overwrite=_OVERWRITE.value)


def _predict() -> None:
  from focal_jax.data.paths import stack_source
  from focal_jax.prediction.predict import Options, predict_folder

  options = Options(
    method=_METHOD.value,
    weights=_WEIGHTS.value,
    align=_ALIGN.value or 'measured',
    motion=Path(_MOTION.value) if _MOTION.value else None,
    only_align=_ONLY_ALIGN.value,
    near_to_far=_NEAR_TO_FAR.value,
    far_to_near=_FAR_TO_NEAR.value,
    exif_dioptres=_EXIF_DIOPTRES.value,
    channel=_CHANNEL.value,
    region=_region(),
    max_side=_MAX_SIDE.value or None,
    depth_side=_DEPTH_SIDE.value or None,
    tile_px=_TILE_PX.value,
    unit=_UNIT.value,
    min_confidence=_MIN_CONFIDENCE.value,
  )
  predict_folder(stack_source(_STACK.value), Path(_OUT.value), options, overwrite=_OVERWRITE.value)


def _region() -> tuple[int, int, int, int] | None:
  if _REGION.value is None:
    return None
  try:
    left, top, width, height = map(int, _REGION.value)
  except ValueError:
    raise InputError(f"--region is '{','.join(_REGION.value)}', expected left,top,width,height in px") from None
  return left, top, width, height


def _profile() -> tuple[int, int] | None:
  if _PROFILE.value is None:
    return None
  try:
    first, last = map(int, _PROFILE.value)
  except ValueError:
    first, last = 0, 0
  if not 1 <= first <= last:
    raise InputError(f"--profile is '{','.join(_PROFILE.value)}', expected two steps, the first one first: 20,30")
  return first, last


_RESULTS = ('out', 'overwrite')
_ALIGN_PREDICT = (
  'How frames are aligned: measured, by their motion as measured in the pictures (the default); network, by the motion '
  'that the alignment network finds; metadata, by the field of view that the metadata tell alone; off, not at all.'
)
_ALIGN_EXPORT = (
  'network: with the alignment network (the default); metadata: with the crop to the common field of view alone; off: '
  'for frames that are aligned already.'
)
MODES = {
  'predict': Mode(
    'Depth, an all-in-focus image and a 3-D model of one stack.',
    _predict,
    ('FOLDER --out=FOLDER', 'FRAME FRAME ... --out=FOLDER'),
    (
      *('stack', *_RESULTS, 'method', 'weights', 'align', 'motion', 'only_align', 'unit', 'near_to_far'),
      *('far_to_near', 'exif_dioptres', 'channel', 'region', 'max_side', 'depth_side', 'tile_px', 'min_confidence'),
    ),
    ('stack', 'out'),
    'stack',
    {'align': _ALIGN_PREDICT},
  ),
  'train': Mode(
    'Train a recipe, or continue a run.',
    _train,
    ('--config=RECIPE --workdir=FOLDER',),
    ('config', 'workdir', 'profile', 'distributed', 'coordinator', 'num_processes', 'process_id'),
    ('config', 'workdir'),
  ),
  'evaluate': Mode(
    'Errors of a network on a data set, beside baselines and published figures.',
    _evaluate,
    ('[WEIGHTS] --out=FOLDER [--config=RECIPE]',),
    ('weights', *_RESULTS, 'config'),
    ('out',),
    'weights',
    {'config': 'Recipe whose data set is measured on: ddff12. Default: the crops that ship.'},
  ),
  'compare': Mode(
    'Several weights and baselines on the same stacks, in one table.',
    _compare,
    ('METHOD METHOD ... --out=FOLDER [--config=RECIPE]',),
    ('methods', *_RESULTS, 'config'),
    ('methods', 'out'),
    'methods',
    {'config': 'Recipe whose data set is measured on: ddff12. Default: the crops that ship.'},
  ),
  'submit': Mode(
    "Predictions for DDFF-12's test file, as the zip that its benchmark takes.",
    _submit,
    ('FILE --out=FOLDER',),
    ('test_file', *_RESULTS, 'weights', 'corrected_focus', 'partial'),
    ('test_file', 'out'),
    'test_file',
  ),
  'export': Mode(
    'A network as one StableHLO file, which runs without this package.',
    _export,
    ('[WEIGHTS] --out=FOLDER',),
    ('weights', *_RESULTS, 'align'),
    ('out',),
    'weights',
    {'align': _ALIGN_EXPORT},
  ),
  'convert': Mode(
    'A published .pth as a weights file of this package.',
    _convert,
    ('FILE --out=FOLDER',),
    ('weights', *_RESULTS, 'arguments'),
    ('weights', 'out'),
    'weights',
    {'weights': 'The published .pth.'},
  ),
  'simulate': Mode(
    'Simulated stacks with their true depth and motion.',
    _simulate,
    ('--out=FOLDER [--config=RECIPE]',),
    (*_RESULTS, 'config', 'presets', 'count', 'rgbd', 'seed'),
    ('out',),
    None,
    {'config': 'Recipe whose simulator makes the stacks. Default: the default settings.'},
  ),
  'sweep': Mode(
    'Train and compare the variants of a recipe.',
    _sweep,
    ('--config=RECIPE --workdir=FOLDER',),
    ('config', 'workdir', 'seeds', 'devices', 'dry_run'),
    ('config', 'workdir'),
    None,
    {
      'config': 'Recipe with a function sweep(add), of configs/ablations or of yours: ablations/alignment.',
      'workdir': 'Folder of the sweep. A sweep that is there already is continued.',
    },
  ),
}


def run(only: str | None = None, name: str = 'focal_jax') -> None:
  """Entry point: of the program, or of one that has a single mode."""
  run_modes(MODES, name, ABOUT, 'train', only)


if __name__ == '__main__':
  run()
