"""Project files: accepted values and error messages."""

from pathlib import Path

import pytest

from pipelines.config.project import Project, load_project, load_projects, read_project
from pipelines.errors import SettingsError


def write(folder: Path, text: str, name: str = "line") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_read_project_when_empty_uses_the_defaults(tmp_path: Path) -> None:
    project = read_project(write(tmp_path, ""))
    assert project.name == "line"
    assert project.retrain.new_images == 500
    assert project.threshold.false_positive_rate == 0.01


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("model: {batch_size: 8}", 128),
        ("model: {preset: small}", 128),
        ("model: {preset: base}", 256),
        ("model: {preset: large}", 512),
        ("model: {preset: large, input_size: 128}", 128),
    ],
)
def test_read_project_sizes_the_input_by_the_preset_unless_told(tmp_path: Path, text: str, size: int) -> None:
    assert read_project(write(tmp_path, text)).model.input_size == size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {preset: [small]}", "model.preset is ['small']: input should be 'small', 'base' or 'large'"),
        ("model: {preset: tiny}", "model.preset is 'tiny': input should be 'small', 'base' or 'large'"),
        ("model: {input_siez: 128}", "model.input_siez: no such key"),
        ("model: {input_size: 100}", "model.input_size is 100: input should be a multiple of 32"),
        (
            "threshold: {policy: guess}",
            "threshold.policy is 'guess': input should be 'least_cost', 'conformal' or 'f1'",
        ),
        (
            "threshold: {false_positive_rate: 2}",
            "threshold.false_positive_rate is 2: input should be less than or equal to 0.5",
        ),
        ("timezone: Mars/Base", "timezone is 'Mars/Base': give an IANA time zone, such as Europe/Berlin"),
        ("retrain: {cron: nightly}", "retrain.cron is 'nightly': give five cron fields"),
        ("recipients: [nobody]", "'nobody' is not an e-mail address"),
        ("subsets: {training: 0.9}", "training + validation + test is 1.3; make it 1"),
        ("group: {regex: 'a('}", "group.regex is 'a(': not a regular expression"),
        ("group: {regex: 'abc'}", r"needs one (…) group"),
        ("group: {regex: '(a)', column: b}", "give either regex or column"),
        ("bucket: 'No Bucket'", "bucket is 'No Bucket': an S3 bucket has 3 to 63"),
        ("name: other", "name: no such key; the project is named as its file, 'line'"),
        ("a: [1", "line 1: not valid YAML"),
        ("- a\n- b", "holds a list; write 'key: value' lines"),
        ("1: 2", "every key must be a word"),
    ],
)
def test_read_project_when_wrong_names_file_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_project(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0.6, 0.2, 0.2)),
        ("task: classification", (0.68, 0.12, 0.2)),
        ("{task: classification, subsets: {training: 0.7, validation: 0.1}}", (0.7, 0.1, 0.2)),
    ],
)
def test_read_project_divides_by_the_targets_of_the_task(tmp_path: Path, text: str, expected) -> None:
    subsets = read_project(write(tmp_path, text)).subsets
    assert (subsets.training, subsets.validation, subsets.test) == expected


def test_read_project_takes_the_newest_of_classifiers_alone(tmp_path: Path) -> None:
    text = "task: classification\ndataset: {newest: 1000}"
    assert read_project(write(tmp_path, text)).dataset.newest == 1000
    assert read_project(write(tmp_path, "")).dataset.newest is None
    with pytest.raises(SettingsError, match=r"dataset.*newest is for task: classification"):
        read_project(write(tmp_path, "dataset: {newest: 1000}"))
    with pytest.raises(SettingsError, match=r"dataset.newest is 0"):
        read_project(write(tmp_path, "{task: classification, dataset: {newest: 0}}"))
    with pytest.raises(SettingsError, match=r"subsets"):
        read_project(write(tmp_path, "{task: classification, subsets: [1]}"))


def test_read_project_when_the_file_name_is_no_project_name_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="name is 'My-Line': name the file with lower-case letters"):
        read_project(write(tmp_path, "", name="My-Line"))


def test_load_projects_when_one_is_wrong_loads_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "", "good")
    write(tmp_path, "oops: 1", "bad")
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(tmp_path))
    loaded = load_projects()
    assert isinstance(loaded["good"], Project)
    assert isinstance(loaded["bad"], SettingsError)


def test_load_projects_when_two_folders_have_it_takes_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, title in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, f"title: {title}")
    monkeypatch.setenv("INSPECTLINE_PROJECTS", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert load_project("line").title == "first"


def test_load_project_when_unknown_names_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "", "known")
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(tmp_path))
    with pytest.raises(SettingsError, match="no project 'other': the project files declare known"):
        load_project("other")


def test_shipped_project_files_are_valid() -> None:
    loaded = load_projects()
    assert set(loaded) == {"ev_batteries", "mushrooms"}
    assert all(isinstance(project, Project) for project in loaded.values())


def test_load_projects_when_the_ending_is_yml_in_any_case_reads_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(tmp_path))
    (tmp_path / "one.yml").write_text("title: One", encoding="utf-8-sig")  # with a byte order mark, as Notepad writes
    (tmp_path / "two.YAML").write_text("title: Two")
    assert {name: project.title for name, project in load_projects().items()} == {"one": "One", "two": "Two"}
    assert load_project("one").title == "One"


def test_load_projects_when_two_files_declare_one_project_refuses_it_by_their_names(tmp_path: Path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("INSPECTLINE_PROJECTS", f"{tmp_path}:{other}")
    for name in ("line.yaml", "line.yml", "calm.yml"):
        (tmp_path / name).write_text("title: a")
    (other / "calm.yaml").write_text("title: b")  # a later folder: as ever, the earlier one goes first
    projects = load_projects()
    assert isinstance(projects["calm"], Project)
    assert projects["calm"].title == "a"
    with pytest.raises(SettingsError, match=r"line\.yaml and line\.yml"):
        load_project("line")
    assert isinstance(projects["line"], SettingsError)


@pytest.mark.parametrize("name", ["line.yaml.txt", "line.json", "line.ymal", "line.toml", "line", "line.yaml.docx"])
def test_load_projects_when_a_file_has_another_ending_refuses_it_by_name(tmp_path: Path, monkeypatch, name: str):
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(tmp_path))
    (tmp_path / name).write_text("title: a")
    write(tmp_path, "", "calm")
    projects = load_projects()
    assert set(projects) == {name, "calm"}
    assert f"{name}: " in str(projects[name])
    assert "line.yaml" in str(projects[name])


def test_load_projects_when_files_cannot_be_meant_ignores_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(tmp_path))
    for name in (".line.yaml.swp", "line.yaml~", "line.yaml.bak", "README.md", ".gitkeep", "#line.yaml#", "Thumbs.db"):
        (tmp_path / name).write_text("title: a")
    (tmp_path / "archive").mkdir()
    assert load_projects() == {}


def test_project_when_predictions_propose_annotations_then_of_a_classifier_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(tmp_path))
    assert read_project(write(tmp_path, "task: classification")).annotation.propose_above is None
    text = "task: classification\nannotation: {propose_above: 0.7}"
    assert read_project(write(tmp_path, text)).annotation.propose_above == 0.7
    for text in (
        "annotation: {propose_above: 0.7}",
        "task: classification\nannotation: {propose_above: 1}",
        "task: classification\nannotation: {propose_above: yes please}",
    ):
        with pytest.raises(SettingsError, match="propose_above"):
            read_project(write(tmp_path, text))
