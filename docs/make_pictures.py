"""`make pictures`: the pictures of README and site that depend on the shipped weights, from the included stacks.

  PYTHONPATH=. python docs/make_pictures.py

A prediction of examples/pcb makes docs/pcb.png and docs/alignment.gif, and with Chromium a picture of its report,
docs/report.jpg. A comparison on the five crops makes docs/comparison.png. All networks with shipped weights make
docs/networks.png, on the crops with corrected focus, and docs/networks_pcb.png. Other output goes to runs/pictures.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

import focal_jax
from focal_jax.data.folder import read_stack_folder
from focal_jax.files.pictures import Panel, contact_sheet

ROOT = Path(__file__).resolve().parents[1]
DOCS, OUT = ROOT / 'docs', ROOT / 'runs' / 'pictures'
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
REPORT_PX = (1280, 1930)  # of the browser's window
SHOWN_PX = 1000  # width of the screenshot in the documentation
COMPARISON_PX = 1600  # width of the comparisons
NETWORKS = ('shipped', 'classical', 'won_jeon', 'dfv', 'fv', 'defocusnet', 'aifdepthnet')


def run(mode: str, *arguments: str, out: str = '') -> Path:
  """Runs a command and returns its output folder."""
  folder = OUT / (out or mode)
  command = [sys.executable, '-m', 'focal_jax.main', mode, *arguments, f'--out={folder}', '--overwrite']
  subprocess.run(command, cwd=ROOT, check=True)
  return folder


def networks_on_pcb(path: Path) -> None:
  """The depth by each network on frames aligned once by the alignment network."""
  stack = read_stack_folder(ROOT / 'examples' / 'pcb', max_side=512, reverse=True)
  models = {name: focal_jax.load(name) for name in NETWORKS}
  motion = models['shipped'].estimate_motion(stack.images, stack.focus, stack.fov, align='network')
  ends = float(stack.focus.min()), float(stack.focus.max())
  panels = [Panel('nearest frame', stack.images[-1]), Panel('farthest', stack.images[0])]
  for name, model in models.items():
    prediction = model.predict(stack.images, stack.focus, stack.fov, motion=motion)
    if len(panels) == 2:
      panels.append(Panel('farthest, aligned', prediction.aligned[0]))
    panels.append(Panel(name, prediction.depth, '', ends))
  half = len(panels) // 2
  contact_sheet(path, [panels[:half], panels[half:]], 'examples/pcb: depth as index of the sharpest frame')


def screenshot(page: Path, path: Path) -> None:
  """A picture of a page in a browser, if one is installed."""
  browser = next(filter(None, map(shutil.which, BROWSERS)), None)
  if browser is None:
    print(f'{path}: unchanged, because none of {", ".join(BROWSERS)} is installed')
    return
  shot = OUT / 'report.png'
  width, height = REPORT_PX
  command = [browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--virtual-time-budget=4000']
  command += [f'--window-size={width},{height}', f'--screenshot={shot}', page.as_uri()]
  subprocess.run(command, check=True, capture_output=True, timeout=120)
  with Image.open(shot) as image:
    reduced(image, SHOWN_PX).save(path, quality=88)


def reduced(image: Image.Image, width: int) -> Image.Image:
  size = width, round(width * image.height / image.width)
  return image.convert('RGB').resize(size, Image.Resampling.LANCZOS)


def comparison(path: Path, *arguments: str) -> None:
  with Image.open(run('compare', *arguments, out=path.stem) / 'comparison.png') as image:
    reduced(image, COMPARISON_PX).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
  predicted = run('predict', 'examples/pcb', '--near_to_far', '--max_side=640')
  shutil.copy(predicted / 'contact_sheet.png', DOCS / 'pcb.png')
  shutil.copy(predicted / 'alignment.gif', DOCS / 'alignment.gif')
  screenshot(predicted / 'report.html', DOCS / 'report.jpg')
  comparison(DOCS / 'comparison.png', 'shipped', 'classical', 'constant')
  corrected = '--config=configs/default.py', '--config.eval.focus=corrected'
  comparison(DOCS / 'networks.png', *NETWORKS, 'constant', *corrected)
  networks_on_pcb(DOCS / 'networks_pcb.png')


if __name__ == '__main__':
  main()
