"""`make pictures`: the pictures of README and front page that depend on the shipped weights, from the stacks that ship.

  python docs/make_pictures.py

A prediction of examples/pcb gives docs/pcb.png and docs/alignment.gif, and with a Chromium its report docs/report.jpg;
a comparison on the five crops gives docs/comparison.png. Everything else that is written goes into runs/pictures.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCS, OUT = ROOT / 'docs', ROOT / 'runs' / 'pictures'
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
REPORT_PX = (1280, 1850)  # of the browser's window
SHOWN_PX = 1000  # width of the screenshot in the documentation
COMPARISON_PX = 1600  # width of the comparison


def run(mode: str, *arguments: str) -> None:
  command = [sys.executable, '-m', 'focal_jax.main', mode, *arguments, f'--out={OUT / mode}', '--overwrite']
  subprocess.run(command, cwd=ROOT, check=True)


def screenshot(page: Path, path: Path) -> None:
  """Of a page in a browser, if there is one."""
  browser = next(filter(None, map(shutil.which, BROWSERS)), None)
  if browser is None:
    print(f'{path}: left as it is, for none of {", ".join(BROWSERS)} is installed')
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


def main() -> None:
  run('predict', 'examples/pcb', '--near_to_far', '--max_side=640')
  shutil.copy(OUT / 'predict' / 'contact_sheet.png', DOCS / 'pcb.png')
  shutil.copy(OUT / 'predict' / 'alignment.gif', DOCS / 'alignment.gif')
  screenshot(OUT / 'predict' / 'report.html', DOCS / 'report.jpg')
  run('compare', 'shipped', 'classical', 'constant')
  with Image.open(OUT / 'compare' / 'comparison.png') as image:
    reduced(image, COMPARISON_PX).quantize(256, dither=Image.Dither.NONE).save(DOCS / 'comparison.png', optimize=True)


if __name__ == '__main__':
  main()
