"""README, docs/ and CONTRIBUTING: every link, path, module and command that they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # the change log names what has gone since
FOLDERS = ("benchmarks", "dags", "docs", "include", "monitoring", "pipelines", "plugins", "serving", "tests")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?<![\w/.<-])((?:{'|'.join(FOLDERS)})(?:/[\w.-]+)+/?)(?![\w<*…/])")
MODULE = re.compile(r"python -m ((?:benchmarks|include|pipelines|serving)[\w.]*)")
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)\b")
SCRIPT = re.compile(r"(?<=[`\n ])((?:\.ci|\.github|include|serving)/[\w./-]+)")

by_page = pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)


def code(page: Path) -> str:
    """Return what the page marks as code: blocks and spans."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return "\n".join(blocks + spans)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def is_module(name: str) -> bool:
    """Return whether the repository has this module or package."""
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_when_it_links_then_file_and_heading_exist(page: Path):
    missing = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing


@by_page
def test_page_when_it_names_a_path_then_it_exists(page: Path):
    paths = set(PATH.findall(code(page))) | set(SCRIPT.findall(code(page)))
    assert not sorted(path for path in paths if not (ROOT / path).exists())


@by_page
def test_page_when_it_names_a_module_then_it_exists(page: Path):
    assert not sorted(name for name in set(MODULE.findall(code(page))) if not is_module(name))


@by_page
def test_page_when_it_names_a_make_command_then_the_makefile_has_it(page: Path):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert not set(MAKE.findall(code(page))) - set(targets)


def test_readme_when_read_then_at_most_150_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_architecture_when_read_then_names_every_package():
    words = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [
        path.parent.relative_to(ROOT).as_posix()
        for name in ("pipelines", "serving", "monitoring", "plugins", "include")
        for path in (ROOT / name).glob("*/__init__.py")
    ]
    assert len(packages) > 15
    assert not [package for package in packages if f"`{package}`" not in words]


def test_operating_when_read_then_names_every_key_of_a_project_and_every_setting_of_serving():
    from pydantic import BaseModel

    from pipelines.config.project import Project

    words = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    keys = []
    for name, field in Project.model_fields.items():
        section = type(field.default)
        keys += [f"{name}.{key}" for key in section.model_fields] if issubclass(section, BaseModel) else [name]
    variables = set()
    for path in ("pipelines/config/settings.py", "serving/settings.py"):
        variables |= set(re.findall(r'"(INSPECTLINE_[A-Z_]+)"', (ROOT / path).read_text(encoding="utf-8")))
    assert not [key for key in [*keys, *sorted(variables)] if key != "name" and f"`{key}" not in words]


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "pictures").iterdir()), ids=lambda path: path.name)
def test_picture_when_kept_then_small_and_shown(picture: Path):
    assert picture.stat().st_size < 150_000
    assert any(picture.name in page.read_text(encoding="utf-8") for page in PAGES)
