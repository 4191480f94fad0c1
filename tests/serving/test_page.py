"""The page at /docs in a real browser: Swagger UI lists every call, logs in and sends calls, all from this server."""

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
    program = next(filter(None, programs), None)
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
    """The page as its user sees it."""

    def __init__(self, browser: Chrome, address: str):
        self._browser = browser
        self._address = address
        browser.get(f"{address}/docs")
        self._until(lambda: browser.find_elements(By.CLASS_NAME, "opblock"))

    def _until(self, condition) -> None:
        WebDriverWait(self._browser, SECONDS).until(lambda _: condition())

    def calls(self) -> list[str]:
        """Return every call listed, as `POST /predict`."""
        summaries = self._browser.find_elements(By.CLASS_NAME, "opblock-summary")
        return [
            " ".join(
                summary.find_element(By.CLASS_NAME, name).get_attribute("textContent").strip().replace("\u200b", "")
                for name in ("opblock-summary-method", "opblock-summary-path")
            )
            for summary in summaries
        ]

    def call(self, operation: str) -> WebElement:
        """Return the block of a call, opened."""
        block = self._browser.find_element(By.CSS_SELECTOR, f".opblock[id$='-{operation}']")
        if "is-open" not in block.get_attribute("class"):
            self._click(block.find_element(By.CLASS_NAME, "opblock-summary-control"))
            self._until(lambda: block.find_elements(By.CLASS_NAME, "execute"))
        return block

    def _click(self, element: WebElement) -> None:
        self._browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def send(self, operation: str) -> str:
        """Send a call, and return what is shown of the answer: the curl command, the status and the body."""
        block = self.call(operation)
        if cleared := block.find_elements(By.CLASS_NAME, "btn-clear"):
            self._click(cleared[0])
        self._until(lambda: not block.find_elements(By.CLASS_NAME, "live-responses-table"))
        self._click(block.find_element(By.CLASS_NAME, "execute"))
        self._until(lambda: block.find_elements(By.CSS_SELECTOR, ".live-responses-table .response-col_status"))
        shown = (".curl-command", ".live-responses-table tbody")
        return "\n".join(block.find_element(By.CSS_SELECTOR, selector).text for selector in shown)

    def log_in(self, scheme: str, *values: str) -> None:
        """Enter credentials for one of the security schemes under Authorize."""
        self._click(self._browser.find_element(By.CSS_SELECTOR, ".btn.authorize"))
        form = self._scheme(scheme)
        for field, value in zip(form.find_elements(By.TAG_NAME, "input"), values, strict=True):
            field.send_keys(value)
        self._click(form.find_element(By.XPATH, ".//button[text()='Authorize']"))
        self._until(lambda: self._scheme(scheme).find_elements(By.XPATH, ".//button[text()='Logout']"))
        self._close()

    def log_out(self, scheme: str) -> None:
        """Forget the credentials of a security scheme."""
        self._click(self._browser.find_element(By.CSS_SELECTOR, ".btn.authorize"))
        self._click(self._scheme(scheme).find_element(By.XPATH, ".//button[text()='Logout']"))
        self._close()

    def _scheme(self, scheme: str) -> WebElement:
        return self._browser.find_element(By.XPATH, f"//div[@class='auth-container'][.//h4/code[text()='{scheme}']]")

    def _close(self) -> None:
        self._click(self._browser.find_element(By.CLASS_NAME, "close-modal"))
        self._until(lambda: not self._browser.find_elements(By.CLASS_NAME, "modal-ux"))

    def other_hosts(self) -> list[str]:
        """Return what the page has loaded from elsewhere."""
        loaded = self._browser.execute_script("return performance.getEntriesByType('resource').map(({name}) => name)")
        assert loaded
        return [name for name in loaded if not name.startswith((f"{self._address}/", "data:", "blob:"))]

    def complaints(self) -> list[str]:
        """Return the browser's errors and warnings, except for the expected ones."""
        expected = (
            "the server responded with a status of 4",  # calls that the tests send to be refused
            'Could not find component:" "JsonSchema_string_binary"',  # Swagger UI's lookup before its own file input
        )
        return [
            entry["message"]
            for entry in self._browser.get_log("browser")
            if entry["level"] in ("WARNING", "SEVERE") and not any(text in entry["message"] for text in expected)
        ]


def test_page_when_opened_then_every_call_is_there_and_an_image_can_be_judged(
    browser: Chrome, server: Server, registry: Registry, image: Path
):
    version = registry.register()
    server.start().until_version(version)
    page = Page(browser, server.address)
    paths = requests.get(f"{server.address}/openapi.json", timeout=10).json()["paths"]
    described = {
        f"{method.upper()} {path}" for path, item in paths.items() for method in item if method != "parameters"
    }
    assert set(page.calls()) == described
    assert f'"version": "{version}"' in page.send("status")

    predict = page.call("predict")
    Select(predict.find_element(By.CSS_SELECTOR, ".body-param-content-type select")).select_by_value(
        "multipart/form-data"
    )
    predict.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(image))
    Select(predict.find_element(By.CSS_SELECTOR, "tr[data-param-name=heatmap] select")).select_by_value("png")
    shown = page.send("predict")
    assert "\n200" in shown
    assert "file=@defect.png" in shown
    assert f'"model_version": "{version}"' in shown
    Select(
        predict.find_element(By.CSS_SELECTOR, ".response-control-media-type--accept-controller select")
    ).select_by_value("image/png")
    assert "\n200" in page.send("predict")
    picture = predict.find_element(By.CSS_SELECTOR, ".live-responses-table img")
    assert browser.execute_script("return arguments[0].naturalWidth", picture) > 50
    assert page.other_hosts() == []
    assert page.complaints() == []


def test_page_when_there_are_accounts_then_one_logs_in_and_out(browser: Chrome, server: Server, registry: Registry):
    registry.register()
    with transaction() as connection:
        users.add(connection, "Ann", hashed(PASSWORD))
    server.start(INSPECTLINE_AUTH="accounts", INSPECTLINE_SECRET_KEY="k" * 40)
    page = Page(browser, server.address)
    assert "\n401" in page.send("who_am_i")
    page.log_in("password", "Ann", "not her password")
    assert "name or password is wrong" in page.send("who_am_i")
    page.log_out("password")
    page.log_in("password", "Ann", PASSWORD)
    assert '"name": "Ann"' in page.send("who_am_i")
    assert "\n403" in page.send("list_users")
    page.log_out("password")
    assert "\n401" in page.send("who_am_i")

    login = {"name": "Ann", "password": PASSWORD}
    token = requests.post(f"{server.address}/login", json=login, timeout=10).json()["token"]
    page.log_in("token", token)
    assert '"name": "Ann"' in page.send("who_am_i")
    page.log_out("token")
    assert "\n401" in page.send("who_am_i")
    assert page.other_hosts() == []
    assert page.complaints() == []
