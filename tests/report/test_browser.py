"""Reports in a real browser: Chromium without a screen, by its driver. CONTRIBUTING.md says how to get it."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lgbatch.report.make import write_report
from lgbatch.workspace.folder import Workspace
from tests.report.helpers import HOSTILE, fail, finished

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("pycolmap")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --use-angle=swiftshader --enable-unsafe-swiftshader --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --window-size=1280,900"
)
PHOTOS = 6
pytestmark = [
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Page:
    """A page in the browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path) -> float:
        """Open a page, and return the seconds until it is ready. Forgets the messages and requests of earlier pages."""
        for kind in "browser", "performance":
            self.driver.get_log(kind)
        start = time.perf_counter()
        self.driver.get(page.as_uri())
        self.wait("document.documentElement.dataset.ready === 'yes'")
        return time.perf_counter() - start

    def run(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def wait(self, condition: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.02)

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        self.run(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        self.find(selector).click()

    def press(self, selector: str, *keys: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def check_quiet(self, page: Path) -> None:
        """The page has said nothing on the console, and asked nothing but itself and the data in it."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        # said by the driver of the graphics card when a test reads pixels
        assert [message for message in said if "GL Driver Message" not in message] == []
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    )
    try:
        yield Page(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of six registered photos, one that matches none, one that failed, and names that would do harm."""
    files = finished(tmp_path_factory.mktemp("run"), PHOTOS, alone=("alone.jpg", *HOSTILE))
    fail(files, "broken.jpg", "<script>document.title='harmed'</script>")
    return write_report(files.root).page


def test_each_part_of_the_page_works(page: Page, report: Path) -> None:
    page.open(report)
    assert page.text("h1") == "6 of 12 photos registered in 1 model"
    assert page.run("[...document.querySelectorAll('.missing h3')].map(e => e.textContent.trim())") == [
        "✕ 5 photos not registered: no matches",
        "✕ 1 photo not registered: failed",
    ]
    page.click(".missing .card")
    assert "no pair with matches" in page.text("#photo-facts")
    page.press("#photo-dialog .close", Keys.ESCAPE)
    rows = "document.querySelectorAll('#photo-table tbody tr').length"
    assert page.run(rows) == 12
    page.find("#photo-filter").send_keys("alone")
    assert page.run(rows) == 1 and page.text("#photo-count") == "1 of 12 photos"
    page.find("#photo-filter").clear()
    page.find("#photo-state").send_keys("registered")
    page.wait(f"{rows} === 6")
    page.click("[data-sort=error]")
    errors = page.run(
        "[...document.querySelectorAll('#photo-table tbody tr')].map(r => Number(r.cells[8].textContent))"
    )
    assert errors == sorted(errors, reverse=True) and errors[0] > 0
    page.check_quiet(report)


def test_a_cell_of_the_matrix_opens_the_pair_with_its_matches(page: Page, report: Path) -> None:
    page.open(report)
    page.click("#matrix")  # the middle: photos 6 and 6 of 12
    page.press("#matrix", *[Keys.ARROW_UP] * 12, *[Keys.ARROW_LEFT] * 12, Keys.ARROW_RIGHT)
    assert page.text("#matrix-readout").startswith("1.jpg — 2.jpg: ")
    page.press("#matrix", Keys.ENTER)
    page.wait("document.getElementById('pair-dialog').open && document.getElementById('pair-canvas').width > 300")
    assert "verified" in page.text("#pair-facts")
    context = "document.getElementById('pair-canvas').getContext('2d')"
    pixels = f"[...{context}.getImageData(0, 0, 300, 150).data].filter((v, i) => i % 4 === 0)"
    page.wait(f"new Set({pixels}).size > 3")  # lines over the grey photos
    page.click("#pair-next")
    page.wait("document.getElementById('pair-title').textContent.startsWith('1.jpg — 3.jpg')")
    page.press("#pair-next", Keys.ESCAPE)
    assert not page.run("document.getElementById('pair-dialog').open")
    page.check_quiet(report)


def test_the_graph_and_the_model_are_used_by_keys(page: Page, report: Path) -> None:
    page.open(report)
    page.press("#graph", Keys.ARROW_RIGHT)
    assert "5 verified pairs" in page.text("#graph-readout")
    page.run("document.getElementById('viewer').scrollIntoView({behavior: 'instant'})")
    page.wait("document.querySelector('#viewer canvas') && document.getElementById('model-readout').textContent")
    assert page.text("#model-readout").startswith("6 cameras, ")
    page.press("#viewer", "n")
    assert "1.jpg: " in page.text("#model-readout")
    before = page.driver.get_screenshot_as_png()
    page.press("#viewer", Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_UP, "+")
    time.sleep(0.3)
    assert page.driver.get_screenshot_as_png() != before
    page.press("#viewer", Keys.ENTER)
    assert page.text("#photo-title") == "1.jpg"
    page.check_quiet(report)


def test_names_do_no_harm(page: Page, report: Path) -> None:
    page.open(report)
    assert page.run("document.title") == f"{report.parent.name}: 6 of 12 photos registered in 1 model"
    assert page.run("document.scripts.length") == 5
    text = page.run("document.body.innerText")
    assert "<img src=x onerror=" in text and "<script>document.title" in text and "{{7*7}}" in text
    page.check_quiet(report)
    page.driver.execute_script(
        "const script = document.createElement('script'); script.textContent = 'document.title = 1';"
        "document.head.append(script); new Image().src = 'https://example.invalid/a.png';"
    )
    refused = [entry["message"] for entry in page.driver.get_log("browser")]
    assert len([message for message in refused if "Content Security Policy" in message]) == 2
    assert page.run("document.title").endswith("registered in 1 model")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_scrolls_down_only(page: Page, report: Path, theme: str) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    features = [{"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.open(report)
        assert page.run("document.documentElement.scrollWidth") == 390
        red, green, blue = page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(red, green, blue) < 60) == (theme == "dark")
        page.check_quiet(report)
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features[1:]})


def test_unfinished_runs_open(page: Page, tmp_path: Path) -> None:
    fail(Workspace(tmp_path), "broken.jpg", "damaged")
    done = write_report(tmp_path)
    page.open(done.page)
    assert page.text("h1") == "Unfinished: 0 of 1 photo extracted, no model yet"
    page.check_quiet(done.page)
