"""Predicts depth of a folder of frames with a file from `focal-jax export`: needs jax, flatbuffers, numpy, Pillow only.

python examples/run_exported.py EXPORTED/model.jax_export FRAMES depth.npy [--near_to_far] [--max_side=PX]
"""

import argparse
from pathlib import Path

import jax
import jax.export
import numpy as np
from PIL import Image

parser = argparse.ArgumentParser(description='Predicts depth of a folder of frames with an exported network.')
parser.add_argument('model', type=Path, help='model.jax_export, written by focal-jax export')
parser.add_argument('folder', type=Path, help='JPEG and PNG frames of one size; their names give the order')
parser.add_argument('out', type=Path, help='new .npy file for the depth, in frames: 0 is the farthest')
parser.add_argument('--near_to_far', action='store_true', help='the first frame is the nearest, not the farthest')
parser.add_argument('--max_side', type=int, default=1024, help='longer side that frames are reduced to, px (1024)')
args = parser.parse_args()
for path, what, found in (
  (args.model, 'file', args.model.is_file()),
  (args.folder, 'folder', args.folder.is_dir()),
  (args.out.parent, 'folder', args.out.parent.is_dir()),
):
  if not found:
    parser.error(f'{path}: found no such {what}')
if args.out.exists():
  parser.error(f'{args.out} exists, expected a new file')


def read(path: Path) -> np.ndarray:
  with Image.open(path) as image:
    rgb = image.convert('RGB')
  rgb.thumbnail((args.max_side, args.max_side), Image.Resampling.LANCZOS)  # never enlarges
  return np.asarray(rgb) / np.float32(255)


paths = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))
if len(paths) < 2:
  parser.error(f'{args.folder} has {len(paths)} JPEG and PNG frames, expected at least 2')
images = np.stack([read(path) for path in (reversed(paths) if args.near_to_far else paths)])
frames, height, width, _ = images.shape
padded = np.pad(images, ((0, 0), (0, -height % 32), (0, -width % 32), (0, 0)))
focus = np.arange(frames, dtype=np.float32)  # in any unit; depth has the same unit
fov = np.ones(frames, np.float32)  # relative field of view, 1 for the narrowest

predict = jax.jit(jax.export.deserialize(args.model.read_bytes()).call)
result = predict(padded[None], focus[None], fov[None], np.int32([height, width]))
depth = np.asarray(result['depth'])[0, :height, :width]
with args.out.open('xb') as file:
  np.save(file, depth)
print(f'{args.out}: {height} x {width} px, depth {depth.min():z.3f} to {depth.max():z.3f} frames')
