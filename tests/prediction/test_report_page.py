"""report.html: its content, and its behaviour in a browser."""

import base64
import json
import re
import shutil
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax.files.pictures import FADED_GREY, FADED_SHARE, to_uint8
from focal_jax.focus import classical
from focal_jax.prediction.report_page import write_report
from focal_jax.prediction.surface import camera_of, make_surface, point_cloud
from focal_jax.stack import Prediction

FRAMES, HEIGHT, WIDTH = 5, 140, 630  # shown at 512 x 114
FOCUS = np.array([0.25, 0.75, 1.0, 1.5, 2.0])
TITLE = '</script><b>stack & "1"</b>'
NAMES = [f'<i>frame {n}</i>.jpg' for n in range(FRAMES)]
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
FLAGS = [
  *('--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'),
  *('--disable-component-update', '--disable-sync'),
]


def scene(weights=True):
  """A near half on the right, of fine stripes, and a far one on the left; frames tell themselves by their colour."""
  rng = np.random.default_rng(0)
  x = np.arange(WIDTH)
  depth = np.where(x < WIDTH // 2, 0.4, 1.9) + rng.uniform(-0.05, 0.05, (HEIGHT, WIDTH))
  distribution = rng.random((FRAMES, HEIGHT, WIDTH), np.float32) ** 3
  before = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
  before[..., 0] = 40 * np.arange(1, FRAMES + 1)[:, None, None]
  aligned = before[..., ::-1] / np.float32(255)
  if not weights:
    aligned = aligned + 0.1 * rng.random(aligned.shape, np.float32)
  prediction = Prediction(
    depth=depth.astype(np.float32),
    confidence=rng.random((HEIGHT, WIDTH), np.float32),
    aligned=aligned,
    coverage=np.ones((FRAMES, HEIGHT, WIDTH), np.float32),
    motion=np.zeros((FRAMES, 3), np.float32),
    weights=distribution / distribution.sum(0) if weights else None,
  )
  picture = np.repeat(np.where(x // 6 % 2, 0.9, 0.2)[None, :, None], HEIGHT, 0) * np.ones(3)
  return before, prediction, picture.astype(np.float32)


def write(path, weights=True, unit='1/m'):
  before, prediction, picture = scene(weights)
  surface = make_surface(
    prediction.depth,
    prediction.confidence,
    to_uint8(picture),
    FOCUS,
    unit,
    camera_of(HEIGHT, WIDTH),
    min_confidence=0.1,
  )
  write_report(
    path,
    title=TITLE,
    names=NAMES,
    before=before,
    prediction=prediction,
    focus=FOCUS,
    unit=unit,
    picture=picture,
    surface=surface,
    facts=[('method', '<u>none</u>')],
    min_confidence=0.1,
  )
  return prediction, surface


def curves_of(prediction):
  """Of every pixel, as they should be shown."""
  if prediction.weights is not None:
    return prediction.weights
  measures = np.asarray(classical.focus_measure(jnp.asarray(prediction.aligned), 2, 1.5, 5, 'ring_difference'))
  return measures / measures.max(0)


def shown_pixels(size):
  """Row and column in the whole picture of each row and column that is shown."""
  return (((np.arange(n) + 0.5) * whole / n).astype(int) for n, whole in zip(size, (HEIGHT, WIDTH), strict=True))


@pytest.mark.parametrize('weights', [True, False])
def test_what_is_in_the_file(tmp_path, weights):
  prediction, surface = write(tmp_path / 'report.html', weights)
  text = (tmp_path / 'report.html').read_text(encoding='utf-8')
  assert len(text) < 10e6
  assert set(re.findall(r'https?://[^\'"]*', text)) == {'http://www.w3.org/2000/svg'}  # a name, not an address
  (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
  data = json.loads(block)
  assert (data['title'], data['names'], data['unit']) == (TITLE, NAMES, '1/m')
  assert data['size'] == [114, 512]

  def unpacked(packed, *shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(packed['data'])), packed['type']).reshape(*shape)

  at = np.ix_(*shown_pixels(data['size']))
  np.testing.assert_array_equal(unpacked(data['depth'], 114, 512), prediction.depth[at])
  np.testing.assert_allclose(
    unpacked(data['confidence'], 114, 512) / 65535, prediction.confidence[at], atol=0.51 / 65535
  )
  expected = np.stack([curve[at] for curve in curves_of(prediction)])
  np.testing.assert_allclose(unpacked(data['curves'], FRAMES, 114, 512) / 255, expected, atol=0.51 / 255)
  cloud, packed = point_cloud(surface, 60_000), data['cloud']
  np.testing.assert_allclose(
    unpacked(packed['points'], -1, 3) * packed['step'] + packed['origin'], cloud.points, atol=0.51 * packed['step']
  )
  np.testing.assert_array_equal(unpacked(packed['colours'], -1, 3), cloud.colours)
  assert '(assumed)' in packed['note']
  assert f'{np.sum(prediction.confidence < 0.1):,} pixels left out: low confidence' in packed['note']


def test_frames_that_do_not_show_a_pixel_have_no_focus_measure(tmp_path):
  before, prediction, picture = scene(weights=False)
  coverage = prediction.coverage.copy()
  coverage[1, :, :100] = 0
  surface = make_surface(
    prediction.depth, prediction.confidence, to_uint8(picture), FOCUS, 'm', camera_of(HEIGHT, WIDTH)
  )
  path = tmp_path / 'report.html'
  write_report(
    path,
    title='',
    names=NAMES,
    before=before,
    prediction=prediction.replace(coverage=coverage),
    focus=FOCUS,
    unit='m',
    picture=picture,
    surface=surface,
  )
  data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding='utf-8'), re.DOTALL)[1])
  curves = np.frombuffer(zlib.decompress(base64.b64decode(data['curves']['data'])), np.uint8).reshape(FRAMES, 114, 512)
  assert (curves[1, :, :80] == 0).all()
  assert (curves[1, :, 85:] > 0).all()
  np.testing.assert_array_equal(curves.max(0), 255)


@pytest.fixture(scope='module')
def browser():
  api = pytest.importorskip('playwright.sync_api', reason='playwright, which drives a browser, is not installed')
  if BROWSER is None:
    pytest.skip('no Chromium is installed')
  with api.sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
    yield browser
    browser.close()


class Page:
  """A report in the browser, and all that it asks of the network or says on the console."""

  def __init__(self, browser, path):
    self.page = browser.new_page(viewport={'width': 1600, 'height': 900})
    self.requests, self.complaints = [], []
    self.page.on('request', lambda request: self.requests.append(request.url))
    self.page.on('console', lambda message: self.complaints.append(message.text) if message.type == 'error' else None)
    self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
    self.page.goto(path.as_uri())
    self.page.wait_for_selector('html[data-ready=yes]', timeout=60_000)
    self.size = self.page.evaluate("[document.querySelector('#map').height, document.querySelector('#map').width]")

  def text(self, name):
    return self.page.locator(f'#{name}').inner_text()

  def click(self, canvas, row, column):
    """Clicks into the middle of a shown pixel."""
    target = self.page.locator(f'#{canvas}').locator('..')
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    place = {'x': (column + 0.5) * box['width'] / self.size[1], 'y': (row + 0.5) * box['height'] / self.size[0]}
    target.click(position=place)

  def slide(self, name, value):
    self.page.locator(f'#{name}').evaluate(
      "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )
    self.settle()

  def settle(self):
    """Waits until what was asked for is drawn."""
    self.page.evaluate('() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')

  def pixels(self, canvas):
    """uint8 [h, w, 4] of a canvas."""
    self.settle()
    values, height, width = self.page.evaluate(
      """name => {
        const canvas = document.getElementById(name), {width, height} = canvas;
        const bytes = canvas.getContext('2d').getImageData(0, 0, width, height).data;
        let text = '';
        for (let k = 0; k < bytes.length; k += 8192) text += String.fromCharCode(...bytes.subarray(k, k + 8192));
        return [btoa(text), height, width];
      }""",
      canvas,
    )
    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(height, width, 4)

  def check_quiet(self, path):
    """Nothing but the file itself was requested, and there were no errors."""
    assert [url for url in self.requests if not url.startswith('data:')] == [path.as_uri()]
    assert self.complaints == []


@pytest.fixture(scope='module', params=[True, False], ids=['distribution', 'focus measure'])
def opened(request, browser, tmp_path_factory):
  path = tmp_path_factory.mktemp('report') / 'a report.html'
  prediction, _ = write(path, weights=request.param)
  page = Page(browser, path)
  yield page, prediction
  page.check_quiet(path)
  page.page.close()


def check_numbers(page, prediction, row, column):
  """What is shown against the arrays; row and column are near those shown, for pointers go by whole pixels of a screen.

  Returns:
    Row and column that were found.
  """
  x, y = map(int, page.text('pixel').split(', '))
  (found_row,), (found_column,) = (
    np.flatnonzero(whole == value) for whole, value in zip(shown_pixels(page.size), (y, x), strict=True)
  )
  assert max(abs(found_row - row), abs(found_column - column)) <= 1
  assert float(page.text('depth')) == pytest.approx(prediction.depth[y, x], rel=1e-3)
  assert float(page.text('distance')) == pytest.approx(1 / prediction.depth[y, x], rel=1e-3)
  assert float(page.text('confidence')) == pytest.approx(prediction.confidence[y, x], abs=6e-4)
  curve = [measures[y, x] for measures in curves_of(prediction)]
  assert page.text('sharpest') == NAMES[int(np.argmax(curve))]
  dots = page.page.locator('#curve circle')
  values = dots.evaluate_all('dots => dots.map(dot => Number(dot.dataset.value))')
  np.testing.assert_allclose(values, curve, atol=0.51 / 255)
  # And they are drawn so, to the right with focus, up with the value.
  across, down = (dots.evaluate_all(f"dots => dots.map(dot => Number(dot.getAttribute('{a}')))") for a in ('cx', 'cy'))
  assert abs(np.corrcoef(across, FOCUS)[0, 1] - 1) < 1e-6
  assert abs(np.corrcoef(down, values)[0, 1] + 1) < 1e-6
  return found_row, found_column


def test_numbers_of_clicked_pixels(opened):
  page, prediction = opened
  for canvas, row, column in (('map', 1, 100), ('map', 112, 400), ('sharp', 90, 200), ('after', 7, 333)):
    page.click(canvas, row, column)
    check_numbers(page, prediction, row, column)


def test_arrow_keys_move_the_pixel(opened):
  page, prediction = opened
  page.click('map', 50, 60)
  row, column = check_numbers(page, prediction, 50, 60)
  for key in ('ArrowRight', 'ArrowDown', 'Shift+ArrowDown', 'ArrowLeft', 'ArrowLeft', 'ArrowUp'):
    page.page.keyboard.press(key)
  assert check_numbers(page, prediction, row + 10, column - 1) == (row + 10, column - 1)


def test_dragging_over_a_picture_reads_it(opened):
  page, prediction = opened
  page.click('map', 20, 20)
  box = page.page.locator('#map').bounding_box()
  page.page.mouse.down()
  page.page.mouse.move(box['x'] + 300.5 / 512 * box['width'], box['y'] + 70.5 / 114 * box['height'], steps=3)
  page.page.mouse.up()
  check_numbers(page, prediction, 70, 300)


def test_frames_slide_before_and_after(opened):
  page, prediction = opened
  for index in (3, 1, 4, 0):
    page.slide('frame', index)
    assert page.text('frame-name').startswith(f'{NAMES[index]} · {index + 1} of 5 · focus {FOCUS[index]:g}')
    np.testing.assert_allclose(page.pixels('before')[100, 100], (40 * (index + 1), 0, 0, 255), atol=3)
    expected = 255 * prediction.aligned[index].mean((0, 1))
    np.testing.assert_allclose(page.pixels('after')[..., :3].mean((0, 1)), expected, atol=3)
  page.page.evaluate('document.activeElement.blur()')
  for key, index in (('ArrowRight', 1), ('ArrowRight', 2), ('ArrowLeft', 1)):
    page.page.keyboard.press(key)
    assert page.text('frame-name').startswith(NAMES[index])


def test_the_sharpest_frame_is_a_click_away(opened):
  page, _ = opened
  page.click('map', 33, 44)
  page.page.locator('#go').click()
  assert page.text('frame-name').startswith(page.text('sharpest'))


def test_maps_are_in_the_colours_of_their_scale(opened):
  page, prediction = opened
  rows, columns = shown_pixels(page.size)
  shown = page.pixels('map')[..., :3].astype(float)
  bar = page.pixels('colours')[::-1, 0, :3].astype(float)  # low to high
  share = (prediction.depth[np.ix_(rows, columns)] - FOCUS[0]) / (FOCUS[-1] - FOCUS[0])
  expected = bar[np.clip(256 * share, 0, 255).astype(int)]
  low = np.round(65535 * prediction.confidence[np.ix_(rows, columns)]) < 6553.5
  expected[low] = (1 - FADED_SHARE) * expected[low] + FADED_SHARE * 255 * FADED_GREY
  np.testing.assert_allclose(shown, expected, atol=1)
  assert page.text('map-note').endswith('; grey where confidence is below 0.1')
  page.page.locator('label[for=map-confidence]').click()
  np.testing.assert_allclose(page.pixels('map')[..., 0], 255 * prediction.confidence[np.ix_(rows, columns)], atol=1.01)
  page.page.locator('label[for=map-depth]').click()


def test_refocusing_blurs_what_is_elsewhere(opened):
  page, _ = opened
  page.page.locator('label[for=all-sharp]').click()
  sharp = page.pixels('sharp')[..., 0].astype(float)
  far, near = np.s_[20:-20, 20:236], np.s_[20:-20, 276:-20]
  for column, in_focus, elsewhere in ((100, far, near), (400, near, far)):
    page.click('sharp', 60, column)
    refocused = page.pixels('sharp')[..., 0].astype(float)
    assert np.abs(refocused - sharp)[in_focus].mean() < 2
    assert refocused[elsewhere].std() < 0.5 * sharp[elsewhere].std()
    page.slide('aperture', 1)  # a small one leaves all but sharp
    assert page.pixels('sharp')[elsewhere][..., 0].std() > 0.8 * sharp[elsewhere].std()
    page.slide('aperture', 8)
  page.slide('focus-at', 0)  # the far end
  assert page.text('focus-name') == '0.25 1/m'
  page.page.locator('label[for=all-sharp]').click()
  np.testing.assert_array_equal(page.pixels('sharp')[..., 0], sharp)


def test_light_is_kept_by_refocusing(opened):
  """A blurred wall of stripes has the mean of their light, not of their pixel values."""
  page, _ = opened
  page.click('sharp', 60, 400)
  page.slide('aperture', 16)
  linear = ((page.pixels('sharp')[30:80, 60:200, 0] / 255 + 0.055) / 1.055) ** 2.4
  expected = np.mean([((value + 0.055) / 1.055) ** 2.4 for value in (0.9, 0.2)])
  assert linear.mean() == pytest.approx(expected, rel=0.03)
  page.slide('aperture', 8)


def test_cloud_turns_and_zooms(opened):
  page, _ = opened
  view = page.page.locator('#view')
  view.scroll_into_view_if_needed()
  box = view.bounding_box()
  centre = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
  first = page.pixels('view')
  assert (first[..., 3] > 0).mean() > 0.1
  page.page.mouse.move(*centre)
  page.page.mouse.down()
  page.page.mouse.move(centre[0] + 90, centre[1] + 20, steps=3)
  page.page.mouse.up()
  turned = page.pixels('view')
  assert (turned != first).any(-1).mean() > 0.05
  page.page.mouse.wheel(0, 300)
  page.page.wait_for_timeout(200)
  smaller = page.pixels('view')
  assert (smaller[..., 3] > 0).sum() < 0.8 * (turned[..., 3] > 0).sum()
  page.page.locator('#reset').click()
  np.testing.assert_array_equal(page.pixels('view'), first)


def test_strange_names_are_shown_as_they_are(opened):
  page, _ = opened
  assert page.text('title') == TITLE == page.page.title()
  assert '<u>none</u>' in page.text('facts')
  assert page.page.locator('b, i:not(#scale i), u').count() == 0


def test_nothing_to_see_is_shown_too(browser, tmp_path):
  """No point passes, one focus for all frames, nothing known of depth."""
  before, prediction, picture = (x[..., :40, :60, :] if isinstance(x, np.ndarray) else x for x in scene())
  prediction = prediction.cropped(40, 60)
  prediction = prediction.replace(depth=np.full((40, 60), np.nan, np.float32))
  focus = np.full(FRAMES, 2.0)
  surface = make_surface(
    prediction.depth, prediction.confidence, to_uint8(picture), focus, 'frame index', camera_of(40, 60)
  )
  path = tmp_path / 'report.html'
  write_report(
    path,
    title='',
    names=NAMES,
    before=before,
    prediction=prediction,
    focus=focus,
    unit='frame index',
    picture=picture,
    surface=surface,
  )
  page = Page(browser, path)
  page.click('map', 3, 4)
  assert page.text('pixel') == '4, 3'
  assert page.text('depth') == 'NaN'
  assert not page.page.locator('#distance').is_visible()
  assert (page.pixels('view') == 0).all()
  page.check_quiet(path)
  page.page.close()
