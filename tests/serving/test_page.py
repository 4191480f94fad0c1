"""The page at /docs in a real browser: everything is there, and the calls can be made from it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from pipelines.catalogue import transaction, users
from tests.serving.conftest import Registry, Server, hashed

PASSWORD = "a password of some length"
SECONDS = 20


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Headless Chromium, as Debian's packages `chromium` and `chromium-driver` install it, or Chrome."""
    programs, driver = (
        map(shutil.which, ("chromium", "chromium-browser", "google-chrome")),
        shutil.which("chromedriver"),
    )
    program = next((one for one in programs if one), None)
    assert program, "there is no chromium: apt-get install chromium chromium-driver"
    assert driver, "there is no chromedriver: apt-get install chromium chromium-driver"
    options = ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--window-size=1200,1600"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # it has none for root
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=ChromeService(driver)) as started:
        yield started


@pytest.fixture
def image(tmp_path: Path, bad_file: bytes) -> Path:
    """An image with a defect, as a file to upload."""
    path = tmp_path / "defect.png"
    path.write_bytes(bad_file)
    return path


class Page:
    """The page, as somebody sees it who opens it."""

    def __init__(self, browser: Chrome, address: str):
        self._browser = browser
        browser.get(f"{address}/docs")
        self._until(lambda: browser.find_elements(By.CSS_SELECTOR, "details.call"))

    def _until(self, condition) -> None:
        WebDriverWait(self._browser, SECONDS).until(lambda _: condition())

    def calls(self) -> list[str]:
        """Return every call shown, as `POST /predict`."""
        shown = self._browser.find_elements(By.CSS_SELECTOR, "details.call > summary")
        return [" ".join(one.text.split()[:2]) for one in shown]

    def call(self, name: str) -> WebElement:
        """Return a call, opened."""
        found = self._browser.find_element(By.ID, name)
        if not found.get_attribute("open"):
            found.find_element(By.TAG_NAME, "summary").click()
        return found

    def send(self, name: str) -> str:
        """Send a call, and return what is shown of the answer."""
        place = self.call(name).find_element(By.CLASS_NAME, "answer")
        button = self.call(name).find_element(By.XPATH, ".//button[text()='Send']")
        button.click()
        self._until(lambda: button.is_enabled() and place.find_elements(By.CSS_SELECTOR, ".fine, .bad"))
        return place.text

    def log_in(self, name: str, password: str, expected: str) -> None:
        """Log in, and wait until the page says what is expected."""
        for field, value in (("name", name), ("password", password)):
            entered = self._browser.find_element(By.CSS_SELECTOR, f"#account input[name={field}]")
            entered.clear()
            entered.send_keys(value)
        self._browser.find_element(By.XPATH, "//button[text()='Log in']").click()
        self._until(lambda: expected in self._browser.find_element(By.ID, "who").text)

    def log_out(self) -> None:
        """Log out."""
        self._browser.find_element(By.ID, "leave").click()

    def complaints(self) -> list[str]:
        """Return what the browser complains of, refused answers aside: those are asked for."""
        entries = self._browser.get_log("browser")
        return [one["message"] for one in entries if "the server responded with a status of 4" not in one["message"]]


def test_page_when_opened_then_every_call_is_there_and_an_image_can_be_judged(
    browser: Chrome, server: Server, registry: Registry, image: Path
):
    version = registry.register()
    server.start().until_version(version)
    page = Page(browser, server.address)
    paths = requests.get(f"{server.address}/openapi.json", timeout=10).json()["paths"]
    short = {
        f"{method.upper()} {path}"
        for path, item in paths.items()
        if not path.startswith("/projects/")
        for method in item
        if method != "parameters"
    }
    assert set(page.calls()) == short
    assert f'"version": "{version}"' in page.send("status")

    predict = page.call("predict")
    Select(predict.find_element(By.NAME, "body")).select_by_visible_text("form with files")
    predict.find_element(By.NAME, "file").send_keys(str(image))
    Select(predict.find_element(By.NAME, "heatmap")).select_by_visible_text("png")
    shown = page.send("predict")
    assert "200 OK" in shown
    assert "-F 'file=@defect.png'" in shown
    assert f'"model_version": "{version}"' in shown
    picture = predict.find_element(By.CSS_SELECTOR, ".answer img")
    assert browser.execute_script("return arguments[0].naturalWidth", picture) > 50
    assert page.complaints() == []


def test_page_when_there_are_accounts_then_one_logs_in_and_out(browser: Chrome, server: Server, registry: Registry):
    registry.register()
    with transaction() as connection:
        users.add(connection, "Ann", hashed(PASSWORD))
    server.start(INSPECTLINE_AUTH="accounts", INSPECTLINE_SECRET_KEY="k" * 40)
    page = Page(browser, server.address)
    assert "401" in page.send("who_am_i")
    page.log_in("Ann", "not her password", expected="name or password is wrong")
    page.log_in("Ann", PASSWORD, expected="Ann, user, until")
    assert '"name": "Ann"' in page.send("who_am_i")
    assert "403" in page.send("list_users")
    page.log_out()
    assert "401" in page.send("who_am_i")
    assert page.complaints() == []
