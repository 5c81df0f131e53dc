"""The command line: `focal-jax MODE ...`, `python -m focal_jax.main MODE ...`, or the same with --mode=MODE.

Modes import what they need only when they run, so that `--help` and flag errors appear at once.
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
  'Recipe: a file or the name of an included recipe, optionally with a variant: configs/ddff12.py, simulated:smoke. '
  'Each field can be set by a flag: --config.optimizer.learning_rate=1e-3.',
)
_MODE = flags.DEFINE_string('mode', None, 'The mode, instead of the first word.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the results.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace existing results in --out.')
_WEIGHTS = flags.DEFINE_string(
  'weights',
  None,
  'A .npz written by training, a published .pth, or the name of other shipped weights: won_jeon, defocusnet, '
  'aifdepthnet, aifdepthnet_unsupervised, fv, dfv. Default: the shipped weights.',
)

# train and sweep
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run. An existing run is continued.')
_PROFILE = flags.DEFINE_list('profile', None, 'First and last step to trace with jax.profiler: 20,30.')
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'This is one of several processes started by Cloud TPU, GKE, SLURM or Open MPI.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of the first process, for processes started in another way.'
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Number of processes, with --coordinator.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Index of this process, from 0, with --coordinator.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs per variant, with consecutive seeds from that of the config.')
_DEVICES = flags.DEFINE_list('devices', [], 'Numbers of the GPUs or TPU chips to use: 0,1. Default: all.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Only list the runs and their progress.')

# predict
_METHOD = flags.DEFINE_string('method', 'network', 'network; or classical or classical:MEASURE, which need no weights.')
_STACK = flags.DEFINE_list('stack', None, 'Folder with the frames of one stack, or a list of files: a.jpg,b.jpg,...')
_ALIGN = flags.DEFINE_enum('align', None, ('measured', 'network', 'metadata', 'off'), 'Alignment of the frames.')
_MOTION = flags.DEFINE_string('motion', None, 'motion.json of an earlier prediction, instead of --align.')
_ONLY_ALIGN = flags.DEFINE_bool('only_align', False, 'Write only aligned frames and motion.json, no depth.')
_NEAR_TO_FAR = flags.DEFINE_bool('near_to_far', False, 'Without focus distances, the first frame is the nearest.')
_FAR_TO_NEAR = flags.DEFINE_bool(
  'far_to_near', False, 'Without focus distances, the first frame is the farthest. Default: derived from the zoom.'
)
_EXIF_DIOPTRES = flags.DEFINE_bool(
  'exif_dioptres', False, 'Read SubjectDistance in EXIF as dioptres; the standard unit is metres.'
)
_CHANNEL = flags.DEFINE_integer(
  'channel', None, 'Channel of a multi-channel TIFF, from 0. Default: the one with most structure.'
)
_REGION = flags.DEFINE_list('region', None, 'Region of the frames to use, in px: left,top,width,height.')
_MAX_SIDE = flags.DEFINE_integer(
  'max_side', 1024, 'Longer side of the results, px; frames are reduced to it. 0: the size of the frames.'
)
_DEPTH_SIDE = flags.DEFINE_integer(
  'depth_side',
  1024,
  'Longer side that frames are reduced to for computing depth, px; depth is then enlarged to --max_side, guided by the '
  'all-in-focus image. 0: depth is computed at full size.',
)
_TILE_PX = flags.DEFINE_integer(
  'tile_px', None, 'Maximum side of the tiles for predicting large frames, px. Smaller tiles take less memory.'
)
_UNIT = flags.DEFINE_enum(
  'unit',
  None,
  ('metres', 'dioptres', 'index'),
  'Unit of depth: metres, dioptres or index. Default: that of the focus distances, or else index.',
)
_MIN_CONFIDENCE = flags.DEFINE_float(
  'min_confidence',
  0.1,
  'Minimum confidence of points in the cloud and mesh, and of depth drawn in full colour, 0 .. 1.',
)

# the others
_METHODS = flags.DEFINE_list(
  'methods',
  None,
  'Weights files, names of shipped weights (shipped, won_jeon, ...), classical, classical:MEASURE or constant; '
  'LABEL=METHOD sets a label.',
)
_TEST_FILE = flags.DEFINE_string('test_file', None, "DDFF-12's ddff-dataset-test.h5.")
_CORRECTED_FOCUS = flags.DEFINE_bool(
  'corrected_focus', False, "Correct DDFF-12's focus labels, for weights not trained on DDFF-12."
)
_PARTIAL = flags.DEFINE_bool('partial', False, 'Accept a file with fewer than 120 stacks, for a trial.')
_ARGUMENTS = flags.DEFINE_list(
  'arguments', [], 'Model arguments missing from the .pth: depth.differential=False,channels=BGR.'
)
_PRESETS = flags.DEFINE_list(
  'presets', [], 'Cameras, each with its own sweep: pixel_6,ddff12. Default: those of the config.'
)
_COUNT = flags.DEFINE_integer('count', 4, 'Number of stacks per preset.')
_RGBD = flags.DEFINE_string('rgbd', None, 'Photographs with depth: folder:DIR or a data set. Default: random scenes.')
_SEED = flags.DEFINE_integer('seed', 0, 'Random seed of the stacks.')


def _default_config() -> ConfigDict:
  """The config of modes that need no recipe."""
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
  from focal_jax.simulate.stacks import settings_from_config
  from focal_jax.simulate.write_stacks import simulate_stacks

  config = _CONFIG.value or _default_config()
  simulate_stacks(
    settings_from_config(config.simulator),
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
  'Alignment of the frames: measured, by the motion measured in the images (default); network, by the alignment '
  'network; metadata, only by the field of view from the metadata; off, none.'
)
_ALIGN_EXPORT = (
  'network: with the alignment network (default); metadata: only with the crop to the common field of view; off: for '
  'aligned frames.'
)
MODES = {
  'predict': Mode(
    'Predict depth, an all-in-focus image and a 3-D model from one stack.',
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
    'Evaluate a network on a data set, with baselines and published figures.',
    _evaluate,
    ('[WEIGHTS] --out=FOLDER [--config=RECIPE]',),
    ('weights', *_RESULTS, 'config'),
    ('out',),
    'weights',
    {'config': 'Recipe with the data set, such as ddff12. Default: the included crops.'},
  ),
  'compare': Mode(
    'Compare several weights and baselines on the same stacks.',
    _compare,
    ('METHOD METHOD ... --out=FOLDER [--config=RECIPE]',),
    ('methods', *_RESULTS, 'config'),
    ('methods', 'out'),
    'methods',
    {'config': 'Recipe with the data set, such as ddff12. Default: the included crops.'},
  ),
  'submit': Mode(
    "Predict DDFF-12's test file and write the zip for its benchmark.",
    _submit,
    ('FILE --out=FOLDER',),
    ('test_file', *_RESULTS, 'weights', 'corrected_focus', 'partial'),
    ('test_file', 'out'),
    'test_file',
  ),
  'export': Mode(
    'Export a network as one StableHLO file that runs without this package.',
    _export,
    ('[WEIGHTS] --out=FOLDER',),
    ('weights', *_RESULTS, 'align'),
    ('out',),
    'weights',
    {'align': _ALIGN_EXPORT},
  ),
  'convert': Mode(
    'Convert a published .pth to a weights file of this package.',
    _convert,
    ('FILE --out=FOLDER',),
    ('weights', *_RESULTS, 'arguments'),
    ('weights', 'out'),
    'weights',
    {'weights': 'The published .pth.'},
  ),
  'simulate': Mode(
    'Simulate stacks with true depth and motion.',
    _simulate,
    ('--out=FOLDER [--config=RECIPE]',),
    (*_RESULTS, 'config', 'presets', 'count', 'rgbd', 'seed'),
    ('out',),
    None,
    {'config': 'Recipe with the settings of the simulator. Default: the default settings.'},
  ),
  'sweep': Mode(
    'Train and compare the variants of a recipe.',
    _sweep,
    ('--config=RECIPE --workdir=FOLDER',),
    ('config', 'workdir', 'seeds', 'devices', 'dry_run'),
    ('config', 'workdir'),
    None,
    {
      'config': 'Recipe with a function sweep(add), your own or from configs/ablations: ablations/alignment.',
      'workdir': 'Folder of the sweep. An existing sweep is continued.',
    },
  ),
}


def run(only: str | None = None, name: str = 'focal_jax') -> None:
  """Entry point of the program, or of one with a single mode."""
  run_modes(MODES, name, ABOUT, 'train', only)


if __name__ == '__main__':
  run()
