"""The command line: `python -m focal_jax.main --mode=train ...`; `_MODES` are the others."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from focal_jax.backend import use_huge_pages
from focal_jax.command_line import run_program
from focal_jax.errors import InputError
from focal_jax.training.writers import show_progress

_MODES = ('train', 'evaluate', 'compare', 'submit', 'predict', 'export', 'convert', 'simulate')
_CONFIG = config_flags.DEFINE_config_file('config', None, 'Recipe, for example configs/simulated.py or ...py:smoke.')
_MODE = flags.DEFINE_enum('mode', 'train', _MODES, 'What to do.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'train: folder of the run; made, or continued.')
_PROFILE = flags.DEFINE_list('profile', None, 'train: first and last step of a trace for jax.profiler: 20,30.')
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'train: one of several processes, as the cluster says (Cloud TPU, GKE, SLURM, Open MPI).'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'train: host:port of the first of several processes, where no cluster says.'
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'train: how many there are, with --coordinator.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'train: which one this is, from 0, with --coordinator.')
_WEIGHTS = flags.DEFINE_string(
  'weights', None, 'evaluate, submit, predict, export, convert: a .npz of ours or a published .pth. Default: shipped.'
)
_ARGUMENTS = flags.DEFINE_list(
  'arguments', [], 'convert: of the model, what a published .pth does not tell: differential=False,channels=BGR.'
)
_METHODS = flags.DEFINE_list(
  'methods', None, 'compare: weights files, shipped, classical, classical:MEASURE, constant, each perhaps as LABEL=...'
)
_TEST_FILE = flags.DEFINE_string('test_file', None, "submit: DDFF-12's ddff-dataset-test.h5.")
_CORRECTED_FOCUS = flags.DEFINE_bool(
  'corrected_focus', False, "submit: correct DDFF-12's focus labels, for weights that were not trained on it."
)
_PARTIAL = flags.DEFINE_bool('partial', False, 'submit: take a file of fewer stacks, for a trial.')
_METHOD = flags.DEFINE_string('method', 'network', 'predict: network, classical, or classical:MEASURE.')
_STACK = flags.DEFINE_list(
  'stack', None, 'predict: folder with the frames of one stack, or the frames: a.jpg,b.jpg,...'
)
_OUT = flags.DEFINE_string('out', None, 'all but train: folder for the results.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace results that are in --out already.')
_ALIGN = flags.DEFINE_enum(
  'align',
  'measured',
  ('measured', 'network', 'metadata', 'off'),
  'predict: align the frames by their motion as measured in the pictures, or as the network finds it; by the field of '
  'view that the metadata tell alone; or not at all. export: off leaves the alignment network out.',
)
_MOTION = flags.DEFINE_string('motion', None, 'predict: motion.json of an earlier prediction, in place of --align.')
_ONLY_ALIGN = flags.DEFINE_bool('only_align', False, 'predict: aligned frames and motion.json, no depth.')
_NEAR_TO_FAR = flags.DEFINE_bool('near_to_far', False, 'predict: without metadata, the first frame is the nearest.')
_EXIF_DIOPTRES = flags.DEFINE_bool(
  'exif_dioptres', False, 'predict: SubjectDistance in EXIF is in dioptres, not in metres as its standard says.'
)
_REGION = flags.DEFINE_list('region', None, 'predict: part of the frames: left,top,width,height, px.')
_MAX_SIDE = flags.DEFINE_integer(
  'max_side', 1024, 'predict: longer side that frames are reduced to, px; 0: as they are.'
)
_TILE_PX = flags.DEFINE_integer(
  'tile_px', None, 'predict: largest side of the tiles that large frames are predicted in; less takes less memory.'
)
_UNIT = flags.DEFINE_enum('unit', None, ('metres', 'dioptres', 'index'), "predict: of depth. Default: the metadata's.")
_MIN_CONFIDENCE = flags.DEFINE_float('min_confidence', 0.1, 'predict: of the points of cloud and mesh, 0 .. 1.')
_PRESETS = flags.DEFINE_list('presets', [], 'simulate: cameras, each with its own sweep. Default: as the config says.')
_COUNT = flags.DEFINE_integer('count', 4, 'simulate: number of stacks, of each preset.')
_RGBD = flags.DEFINE_string(
  'rgbd', None, 'simulate: photographs with depth, folder:DIR or a data set; else random scenes.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'simulate: another one gives other stacks.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise InputError(f'unexpected argument {argv[1]!r}; expected flags only, see --help')
  show_progress()
  if _MODE.value == 'train':
    from focal_jax.training import parallel
    from focal_jax.training.loop import train_and_evaluate

    config, workdir = _required('config', _CONFIG), _required('workdir', _WORKDIR)
    use_huge_pages()
    if _DISTRIBUTED.value or any(flag.value is not None for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID)):
      parallel.start_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    train_and_evaluate(config, workdir, _profile())
  elif _MODE.value == 'evaluate':
    from focal_jax.config import to_config_dict
    from focal_jax.evaluation.evaluator import evaluate

    config = _CONFIG.value or to_config_dict()
    evaluate(config, _WEIGHTS.value, Path(_required('out', _OUT)), overwrite=_OVERWRITE.value)
  elif _MODE.value == 'compare':
    from focal_jax.config import to_config_dict
    from focal_jax.evaluation.compare import compare

    config = _CONFIG.value or to_config_dict()
    methods, out = _required('methods', _METHODS), Path(_required('out', _OUT))
    compare(config, methods, out, overwrite=_OVERWRITE.value)
  elif _MODE.value == 'submit':
    from focal_jax.evaluation.submission import submit

    test_file, out = Path(_required('test_file', _TEST_FILE)), Path(_required('out', _OUT))
    submit(
      test_file,
      out,
      weights=_WEIGHTS.value,
      corrected_focus=_CORRECTED_FOCUS.value,
      partial=_PARTIAL.value,
      overwrite=_OVERWRITE.value,
    )
  elif _MODE.value == 'simulate':
    from focal_jax.config import to_config_dict
    from focal_jax.data.rgbd import open_rgbd
    from focal_jax.simulate.stacks import settings_from
    from focal_jax.simulate.write_stacks import simulate_stacks

    config = _CONFIG.value or to_config_dict()
    simulate_stacks(
      settings_from(config.simulator),
      Path(_required('out', _OUT)),
      presets=_PRESETS.value,
      count=_COUNT.value,
      photographs=open_rgbd(_RGBD.value, config.data.data_dir) if _RGBD.value else None,
      seed=_SEED.value,
      overwrite=_OVERWRITE.value,
    )
  elif _MODE.value == 'export':
    from focal_jax.api import load
    from focal_jax.prediction.export import export_model

    out = Path(_required('out', _OUT))
    export_model(load(_WEIGHTS.value), out, align=_ALIGN.value != 'off', overwrite=_OVERWRITE.value)
  elif _MODE.value == 'convert':
    from focal_jax.prediction.convert import convert

    weights, out = _required('weights', _WEIGHTS), Path(_required('out', _OUT))
    convert(weights, _ARGUMENTS.value, out, overwrite=_OVERWRITE.value)
  else:
    from focal_jax.prediction.predict import Options, predict_folder

    stack, out = _required('stack', _STACK), Path(_required('out', _OUT))
    options = Options(
      method=_METHOD.value,
      weights=_WEIGHTS.value,
      align=_ALIGN.value,
      motion=Path(_MOTION.value) if _MOTION.value else None,
      only_align=_ONLY_ALIGN.value,
      near_to_far=_NEAR_TO_FAR.value,
      exif_dioptres=_EXIF_DIOPTRES.value,
      region=_region(),
      max_side=_MAX_SIDE.value or None,
      tile_px=_TILE_PX.value,
      unit=_UNIT.value,
      min_confidence=_MIN_CONFIDENCE.value,
    )
    predict_folder(stack[0] if len(stack) == 1 else stack, out, options, overwrite=_OVERWRITE.value)


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


def _required(name: str, flag: flags.FlagHolder):
  if flag.value is None:
    raise InputError(f'--mode={_MODE.value} needs --{name}')
  return flag.value


def run() -> None:
  """Entry point."""
  run_program(main, 'focal_jax')


if __name__ == '__main__':
  run()
