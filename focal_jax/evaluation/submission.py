"""`focal-jax submit`: predictions for the official test file of DDFF-12, as the zip for its benchmark on CodaLab.

The depth of the test split is hidden; the authors' server compares. The zip contains, at its root,

  <scene>/DISP_0001.npy .. DISP_0020.npy    float32 [383, 552], disparity px, of each of six scenes
  runtime.txt                               '<scene>/DISP_0001 seconds', one line each

The stacks of the test file are 20 of each scene, in the order of the scenes.
"""

import collections
import io
import json
import logging
import math
import reprlib
import struct
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

import focal_jax
from focal_jax import backend
from focal_jax.errors import InputError, one_line
from focal_jax.evaluation.methods import CorrectedFocus, may_have_seen
from focal_jax.evaluation.timing import Timed
from focal_jax.files import pictures
from focal_jax.files.outputs import check_output, result_folder
from focal_jax.optics import DDFF_FOCUS_OFFSET_PX
from focal_jax.stack import Prediction
from tfds_ddff.ddff12.ddff12_dataset_builder import SCENES, TEST_SIZE, official_test_split

log = logging.getLogger(__name__)

STACKS_PER_SCENE = 20
NAMES = tuple(f'{scene}/DISP_{number:04d}' for scene in SCENES['test'] for number in range(1, STACKS_PER_SCENE + 1))

FOLDER, ZIP = 'submission', 'submission.zip'
RUNTIME = 'runtime.txt'
_LINE_BYTES = 100  # maximum length of a line of RUNTIME
_HEADER_BYTES = 4096  # maximum length of the header of a .npy file
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
# What zipfile raises for damaged, encrypted and otherwise unusual archives.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, struct.error)


def submit(
  test_file: Path,
  out: Path,
  *,
  weights: str | None = None,
  corrected_focus: bool = False,
  partial: bool = False,
  overwrite: bool = False,
) -> Path:
  """Predicts every stack of the test file and writes into `out`:

  submission/ and submission.zip (the file to upload), as described in the module; contact_sheet.png with the first
  stack of each scene; and summary.json. Frames are aligned by construction, so there is no alignment step. Run times
  are host to host, after compilation, one stack at a time.

  Args:
    test_file: `ddff-dataset-test.h5`.
    weights: as for `focal_jax.load`.
    corrected_focus: for weights not trained on DDFF-12: use the true focus of the frames instead of the labels
      (`optics.DDFF_FOCUS_OFFSET_PX`).
    partial: accept a file with only the first of the 120 stacks. The benchmark does not accept the result.

  Returns:
    The zip, which has passed `check_submission`.

  Raises:
    InputError: invalid file, weights, predictions, or `out`; nothing is written then.
  """
  check_output(out, overwrite)
  source = official_test_split(test_file)
  if len(source) != len(NAMES) and not (partial and len(source) < len(NAMES)):
    trial = '; --partial accepts fewer, for a trial' if len(source) < len(NAMES) else ''
    raise InputError(
      f'{test_file}: stack_test has a length of {len(source)}, expected {len(NAMES)} stacks, {STACKS_PER_SCENE} of '
      f'each of the scenes {", ".join(SCENES["test"])}{trial}'
    )
  names = NAMES[: len(source)]
  complete = names == NAMES
  if not complete:
    log.warning('%s: %d of %d stacks; CodaLab will reject it', test_file, len(names), len(NAMES))
  model = focal_jax.load(weights)
  if corrected_focus and may_have_seen(model, 'ddff12'):
    raise InputError(
      f'{model.name}: --corrected_focus with weights that may have been trained on DDFF-12 '
      f'({", ".join(model.trained_on)}), expected others: these have learned its labels'
    )
  timed = Timed(CorrectedFocus(model, DDFF_FOCUS_OFFSET_PX) if corrected_focus else model)

  seconds, shown = {}, []
  with result_folder(out, overwrite) as staging:
    for index, name in enumerate(tqdm(names, desc=test_file.name, unit='stack')):
      example = source.read(index)
      focus = example['focus']
      prediction, seconds[name] = timed.predict(example['images'], focus, example['fov'], align='off')
      if not np.isfinite(prediction.depth).all():  # known before all others are predicted
        raise InputError(f'{model.name}: predicts disparities of {name} that are not finite, expected finite ones')
      path = staging / FOLDER / f'{name}.npy'
      path.parent.mkdir(parents=True, exist_ok=True)
      np.save(path, np.asarray(prediction.depth, np.float32))
      if index % STACKS_PER_SCENE == 0:
        shown.append(_panels(name, example['images'], prediction, (float(focus.min()), float(focus.max()))))
    lines = [f'{name} {value:.6f}\n' for name, value in seconds.items()]
    (staging / FOLDER / RUNTIME).write_text(''.join(lines))
    _write_zip(staging / ZIP, staging / FOLDER)
    check_submission(staging / ZIP, len(names))
    pictures.contact_sheet(staging / 'contact_sheet.png', shown, f'{test_file.name}: disparity in px')
    summary = {
      'test_file': str(test_file),
      'weights': model.name,
      'focus': 'corrected' if corrected_focus else 'as labelled',
      'stacks': len(names),
      'complete': complete,
      'seconds_a_stack': float(np.median(list(seconds.values()))),
      'device': str(backend.default_device()),
      'versions': {'focal_jax': focal_jax.__version__, 'jax': jax.__version__},
    }
    (staging / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
  for name in NAMES[len(names) :]:  # left from an overwritten submission; the folder must match the zip
    (out / FOLDER / f'{name}.npy').unlink(missing_ok=True)
  log.info('stacks: %d, %.2f s each; wrote %s', len(names), summary['seconds_a_stack'], out / 'contact_sheet.png')
  if complete:
    log.info('upload %s to CodaLab', out / ZIP)
  else:
    log.warning('%s: %d of %d stacks; CodaLab will reject it', out / ZIP, len(names), len(NAMES))
  return out / ZIP


def check_submission(path: Path, count: int = len(NAMES)) -> None:
  """Reads and checks a submission.

  Nothing is unpacked to disk or unpickled, and at most the expected size of each file is read.

  Args:
    path: a zip as described in the module.
    count: number of stacks, from the start of the test file; the benchmark requires all.

  Raises:
    InputError: a missing, unexpected or damaged file; a map with a wrong shape or type, or not finite; or runtime.txt
      does not have exactly one line per map, with positive and finite seconds.
  """
  if not path.is_file():
    raise InputError(f'{path}: found no such file, expected the zip of a submission')
  names = NAMES[:count]
  members = (RUNTIME, *(f'{name}.npy' for name in names))
  try:
    archive = zipfile.ZipFile(path)
  except _ZIP_ERRORS as error:
    raise InputError(f'{path}: found a file that cannot be read ({one_line(error)}), expected a whole zip') from error
  with archive:
    found = collections.Counter(archive.namelist())
    for member, times in found.items():
      if member not in members:
        raise InputError(f'{path}: found {reprlib.repr(member)}, expected only {RUNTIME} and {len(names)} maps')
      if times > 1:
        raise InputError(f'{path}: found {member} {times} times, expected it once')
    for member in members:
      if member not in found:
        raise InputError(f'{path}: {member} is missing, found {len(found)} files, expected {len(members)}')
    _check_runtime(path, archive, names)
    for name in names:
      _check_map(path, archive, f'{name}.npy')


def _check_runtime(path: Path, archive: zipfile.ZipFile, names: tuple[str, ...]) -> None:
  source, limit = f'{path}: {RUNTIME}', _LINE_BYTES * len(names)
  content = _read(path, archive, RUNTIME, limit + 1)
  if len(content) > limit:
    raise InputError(f'{source} has more than {limit} bytes, expected {len(names)} lines')
  seen = set()
  for line in content.decode('ascii', 'replace').splitlines():
    name, _, value = line.partition(' ')
    if name not in names:
      raise InputError(f"{source}: found the line {reprlib.repr(line)}, expected lines such as '{names[0]} 0.5'")
    if name in seen:
      raise InputError(f'{source}: found {name} twice, expected one line for each map')
    seen.add(name)
    try:
      seconds = float(value)
    except ValueError:
      seconds = math.nan
    if not 0 < seconds < math.inf:
      raise InputError(f'{source}: {name} has {reprlib.repr(value)}, expected seconds, above 0 and finite')
  for name in names:
    if name not in seen:
      raise InputError(f'{source}: {name} is missing, found {len(seen)} lines, expected {len(names)}')


def _check_map(path: Path, archive: zipfile.ZipFile, member: str) -> None:
  size = math.prod(TEST_SIZE) * np.dtype(np.float32).itemsize
  content = io.BytesIO(_read(path, archive, member, size + _HEADER_BYTES))
  # Not np.load, which would allocate whatever shape a header claims.
  try:
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
      raise ValueError(f'version {version} of the format')
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
  except Exception as error:  # NumPy parses the header as Python does, which fails in many ways
    raise InputError(
      f'{path}: found {member} damaged ({one_line(error)}), expected the .npy file of an array'
    ) from error
  if shape != TEST_SIZE or dtype != np.float32:
    raise InputError(f'{path}: {member} is {shape} {dtype}, expected {TEST_SIZE} float32')
  values = content.read()
  if len(values) != size:
    than = 'more' if len(values) > size else 'less'
    raise InputError(f'{path}: {member} holds {than} than its header says, expected {size} bytes of values')
  bad = np.sum(~np.isfinite(np.frombuffer(values, np.float32)))
  if bad:
    raise InputError(f'{path}: {member} has {bad} values that are not finite, expected none')


def _read(path: Path, archive: zipfile.ZipFile, member: str, limit: int) -> bytes:
  """The first bytes of a file in the zip, at most `limit`; with fewer, the checksum of the file has been checked."""
  try:
    with archive.open(member) as file:
      return file.read(limit)
  except _ZIP_ERRORS as error:
    raise InputError(f'{path}: found {member} damaged ({one_line(error)}), expected an intact file') from error


def _write_zip(path: Path, folder: Path) -> None:
  """Zips the files below `folder`, with relative names; deterministic, bit for bit."""
  with zipfile.ZipFile(path, 'w') as archive:
    for file in sorted(file for file in folder.rglob('*') if file.is_file()):
      info = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _ZIP_DATE)
      info.create_system, info.external_attr = 3, 0o644 << 16  # as on Unix, on every platform
      archive.writestr(info, file.read_bytes(), zipfile.ZIP_DEFLATED)


def _panels(name: str, images: np.ndarray, prediction: Prediction, limits: tuple[float, float]) -> list[pictures.Panel]:
  return [
    pictures.Panel(f'{name}: nearest frame', images[-1]),
    pictures.Panel('farthest frame', images[0]),
    pictures.Panel('disparity', prediction.depth, 'px', limits),
    pictures.Panel('confidence', prediction.confidence, 'share', (0.0, 1.0), pictures.CONFIDENCE_COLOURS),
  ]
