from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.stack.errors import StackError
from include.stack.project_file import choose_project, declare, slug, task_of
from pipelines.config.project import PROJECT_NAME, load_project
from pipelines.errors import SettingsError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PA_BRG03_TL", "pa_brg03_tl"),
        ("bsdata", "bsdata"),
        ("Zelle 4 (links)", "zelle_4_links"),
        ("Prüfung-Süd", "prufung_sud"),
        ("2024 batch", "line_2024_batch"),
        ("電池", "line"),
        ("", "line"),
    ],
)
def test_slug_when_made_of_a_folders_name_reads_like_it(name, expected):
    assert slug(name) == expected


@given(st.text())
def test_slug_when_made_of_anything_names_a_project(name):
    assert PROJECT_NAME.fullmatch(slug(name))
    assert slug(slug(name)) == slug(name)


def test_project_when_named_is_that_one_whatever_the_folder():
    assert choose_project("mushrooms", Path("/data/Bolts"), "ev_batteries") == "mushrooms"


def test_project_when_only_a_folder_is_given_is_named_as_it(tmp_path):
    (tmp_path / "Bolts M4").mkdir()

    assert choose_project(None, tmp_path / "Bolts M4", "ev_batteries") == "bolts_m4"
    assert choose_project(None, tmp_path / "Bolts M4" / ".." / "Bolts M4" / ".", "ev_batteries") == "bolts_m4"


def test_project_when_nothing_is_given_is_the_default():
    assert choose_project(None, None, "ev_batteries") == "ev_batteries"


@pytest.mark.parametrize("name", ["Line 3", "3rd", "a/b", "ö", ""])
def test_project_when_it_cannot_be_one_is_refused_with_a_name_that_can(name):
    with pytest.raises(StackError, match=r"name it with lower-case letters, digits and _, as in PROJECT=[a-z]"):
        choose_project(name, None, "ev_batteries")


@pytest.fixture
def own_projects(stack, monkeypatch):
    """Read project files of the stack's own folder alone."""
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(stack.projects))
    return stack


def test_project_file_when_written_is_one_that_pipelines_reads(own_projects):
    path = declare(own_projects, "bolts_m4", "/data/Bolts M4")

    assert path == own_projects.projects / "bolts_m4.yaml"
    assert "/data/Bolts M4" in path.read_text()
    assert load_project("bolts_m4").title == "Bolts m4"
    assert load_project("bolts_m4").bucket == "inspectline"


def test_project_file_when_there_is_one_is_left_as_it_is(own_projects):
    file = own_projects.projects / "bolts.yaml"
    file.write_text("title: My own\n")

    assert declare(own_projects, "bolts", "/data") is None
    assert file.read_text() == "title: My own\n"


def test_project_file_when_there_is_a_wrong_one_is_told_before_anything_starts(own_projects):
    (own_projects.projects / "bolts.yaml").write_text("modle: {}\n")

    with pytest.raises(SettingsError, match="bolts.yaml: modle: no such key"):
        declare(own_projects, "bolts", "/data")


def test_project_file_when_the_source_has_line_breaks_keeps_them_out(own_projects):
    declare(own_projects, "odd", "/data/a\nbucket: elsewhere")

    assert load_project("odd").bucket == "inspectline"


def test_project_file_when_written_for_classes_is_one_of_that_task(own_projects):
    assert task_of(own_projects, "caps", None) == "anomaly"
    assert task_of(own_projects, "caps", "classification") == "classification"
    declare(own_projects, "caps", "/data", "classification")

    assert load_project("caps").task == "classification"
    assert load_project("caps").subsets.training == 0.68
    assert task_of(own_projects, "caps", None) == "classification"


def test_task_when_it_is_not_that_of_the_project_says_which_name_to_give(own_projects):
    declare(own_projects, "bolts", "/data")

    with pytest.raises(StackError, match="bolts is a line of task anomaly .* PROJECT=bolts_classification"):
        task_of(own_projects, "bolts", "classification")
