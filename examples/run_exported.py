"""Predicts depth of a folder of frames with a file from `focal-jax export`: needs jax, flatbuffers, numpy, Pillow only.

python examples/run_exported.py EXPORTED/model.jax_export FRAMES depth.npy    # in name order, far to near
"""

import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
from PIL import Image

model, folder, out = map(Path, sys.argv[1:])
paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))
images = np.stack([np.asarray(Image.open(path).convert('RGB')) for path in paths]) / np.float32(255)
frames, height, width, _ = images.shape
padded = np.pad(images, ((0, 0), (0, -height % 32), (0, -width % 32), (0, 0)))
focus = np.arange(frames, dtype=np.float32)  # in any unit; depth has the same unit
fov = np.ones(frames, np.float32)  # relative field of view, 1 for the narrowest

predict = jax.jit(jax.export.deserialize(model.read_bytes()).call)
result = predict(padded[None], focus[None], fov[None], np.int32([height, width]))
depth = np.asarray(result['depth'])[0, :height, :width]
with out.open('xb') as file:  # never overwrite an existing file
  np.save(file, depth)
print(f'{out}: {height} x {width} px, depth {depth.min():.3f} to {depth.max():.3f} frames')
