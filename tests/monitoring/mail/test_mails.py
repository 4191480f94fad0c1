"""Mails: what they say, to whom, and what cannot be smuggled into them."""

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from monitoring.accuracy.measure import Confusion, Measured, WorstClass
from monitoring.mail.formatting import number, percent, reason
from monitoring.mail.mails import Mail, accuracy_mail, digest_mail, drift_mail, failure_mail, training_mail
from pipelines.config.project import Project, load_project
from pipelines.steps import (
    DatasetVersion,
    Decision,
    Estimate,
    EvaluationReport,
    Outcome,
    Run,
    TrainingParameters,
    VersionMetrics,
)
from tests.conftest import Projects

WHEN = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
COLUMN = {"method": "wasserstein", "threshold": 0.5, "shift": 0.1}
STEADY = COLUMN | {"distance": 0.2, "drifted": False}
MOVED = COLUMN | {"distance": 2.75, "drifted": True}
RESULTS: dict[str, Any] = {
    "window_days": 7,
    "rescored": 40,
    "lost": 3,
    "anomalous": 0.31,
    "expected_anomalous": 0.02,
    "reasons": ["the anomaly score drifted", "1 of 2 descriptors drifted: brightness"],
    "score": MOVED | {"name": "anomaly score", "reference_median": 0.0031, "current_median": 0.0172},
    "descriptors": [
        STEADY | {"name": "noise", "reference_median": 0.02, "current_median": 0.02},
        MOVED | {"name": "brightness", "reference_median": 0.43, "current_median": 0.61},
    ],
    "embedding": {"components": 64, "share": 0.69, "threshold": 0.2, "drifted": True},
    "left_out": {"width": "always 640"},
    "stated": ["Method and limits in words."],
    "link": {"url": "https://mlflow.example.com/#/report?a=1&b=2", "opens": "without a login until tomorrow"},
}
DRIFT = {
    "state": "drift",
    "results": RESULTS,
    "created_at": WHEN,
    "model_version": "3",
    "reference_n": 80,
    "current_n": 240,
}
ALARMS = {
    "images": 240,
    "found": 15,
    "allowed": 7,
    "limit": 14,
    "promised": 0.01,
    "broken": True,
    "drifted": True,
}
KEPT = {"broken": False, "drifted": False}
RUN = Run(
    project="cells",
    kind="retrain",
    training_id="t1",
    dataset=DatasetVersion("cells", "v-20261121", "", ""),
    parameters=TrainingParameters(60, None, "scratch", promote=True),
    dag_run_id="manual__2026-11-21T08:12:00+00:00",
)


def estimate(value: float) -> Estimate:
    """Return an estimate with its interval, as the evaluation has it."""
    return Estimate(value, value - 0.03, value + 0.02)


OUTCOME = Outcome(
    version="4",
    promoted=True,
    metrics={"auroc": estimate(0.968), "f1": estimate(0.902)},
    threshold=0.00731,
    policy="least_cost",
    notes=["85 validation images are too few to promise 1 %."],
)
DECISION = Decision(
    promoted=True,
    why="Promoted: AUROC 0.968, not worse than 0.954.",
    basis="20 test anomalies",
    champion=VersionMetrics("3", 0.007, auroc=estimate(0.954)),
    challenger=VersionMetrics("4", 0.0073, auroc=estimate(0.968)),
    difference=estimate(0.014),
    notes=[],
    report_uri="s3://inspectline/cells/decision.json",
)


@pytest.fixture
def cells(projects: Projects, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Declare a project in Berlin with two recipients, and public addresses."""
    monkeypatch.setenv("INSPECTLINE_AIRFLOW_URL", "https://airflow.example.com/")
    monkeypatch.setenv("INSPECTLINE_MLFLOW_URL", "https://mlflow.example.com")
    projects.write(
        "cells", title="Cells & <caps>", timezone="Europe/Berlin", recipients=["a@example.com", "b@example.com"]
    )
    return load_project("cells")


class Page(HTMLParser):
    """The text and links of a page; notes what is opened and never closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if tag == "a" and name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """All words, with single spaces."""
        assert not self.open
        return " ".join(" ".join(self.words).split())


def both(mail: Mail) -> list[str]:
    """Return the words of both parts, with single spaces."""
    return [Page(mail.html).text, " ".join(mail.text.split())]


def test_drift_mail_when_read_then_says_what_moved_how_much_what_to_do_and_where_the_report_is(cells: Project):
    mail = drift_mail(cells, DRIFT)
    assert mail.subject == "Cells & <caps>: drift – the anomaly score drifted"
    assert mail.to == ("a@example.com", "b@example.com")
    for words in both(mail):
        for expected in [
            "brightness",
            "0.430",
            "0.610",
            "2.75",
            "0.50",
            "69",
            "240",
            "80",
            "version 3",
            "31 %",
            "2.0 %",
        ]:
            assert expected in words
        assert "lighting or exposure (brightness)" in words
        assert "Method and limits in words." in words
        assert "width (always 640)" in words
        assert "without a login until tomorrow" in words
        assert "21 November 2026, 09:30 CET" in words
    assert RESULTS["link"]["url"] in Page(mail.html).links
    assert RESULTS["link"]["url"] in mail.text
    assert "https://airflow.example.com/dags/cells_retrain" in Page(mail.html).links


def test_drift_mail_when_the_promise_is_broken_then_says_by_how_much_and_what_to_do(cells: Project):
    mail = drift_mail(cells, DRIFT | {"results": RESULTS | {"false_alarms": ALARMS}})
    for words in both(mail):
        assert (
            "15 of the anomalous ones are known to be good; the promised false-positive rate of 1 % allows for at most "
            "7 of 240."
        ) in words
        assert "the images have drifted" in words.lower()
        assert "learns from them and sets the threshold anew" in words
        assert "So many anomalies can also be real" in words
    assert "5. So many" in mail.text
    single = drift_mail(cells, DRIFT | {"results": RESULTS | {"false_alarms": ALARMS | KEPT | {"found": 1}}})
    for words in both(single):
        assert "1 of the anomalous ones is known to be good" in words
        assert "sets the threshold anew" not in words
    none = drift_mail(cells, DRIFT | {"results": RESULTS | {"false_alarms": ALARMS | KEPT | {"found": 0}}})
    assert all("known to be good" not in words for words in both(none))


def test_drift_mail_when_nothing_but_the_promise_is_broken_then_the_headline_says_that(cells: Project):
    steady = {"score": RESULTS["score"] | {"drifted": False}, "embedding": None, "reasons": ["15 of 240 images …"]}
    mail = drift_mail(cells, DRIFT | {"results": RESULTS | steady | {"false_alarms": ALARMS}})
    assert mail.subject == "Cells & <caps>: drift – 15 of 240 images …"
    for words in both(mail):
        assert "more false alarms than promised nothing that is measured moved enough" in words.lower()
        assert "the images have drifted" not in words.lower()
        assert "15 of 240 images …" in words


def test_drift_mail_when_the_drift_of_false_alarms_is_over_then_says_that_nobody_may_have_judged(cells: Project):
    before = DRIFT | {"results": RESULTS | {"false_alarms": ALARMS}}
    still = RESULTS | {"reasons": ["9 of 240 images …"], "false_alarms": ALARMS | {"found": 9, "drifted": False}}
    calm = DRIFT | {"state": "no_drift", "results": still}
    for words in both(drift_mail(cells, calm, before)):
        assert "Alarms that nobody judged are not counted" in words
        assert "9 of 240 images …" in words
    # A report of when more than the promise allows for were drift.
    old = {name: value for name, value in ALARMS.items() if name not in ("drifted", "limit")}
    for words in both(drift_mail(cells, calm, DRIFT | {"results": RESULTS | {"false_alarms": old}})):
        assert "Alarms that nobody judged are not counted" in words
    for mail in (drift_mail(cells, calm | {"model_version": "4"}, before), drift_mail(cells, calm, DRIFT)):
        assert all("nobody judged" not in words for words in both(mail))


def test_drift_mail_when_drift_is_over_after_a_promotion_then_says_both(cells: Project):
    calm = DRIFT | {"state": "no_drift", "model_version": "4", "results": RESULTS | {"reasons": []}}
    mail = drift_mail(cells, calm, DRIFT)
    assert mail.subject == "Cells & <caps>: drift is over"
    for words in both(mail):
        assert "from version 3 to 4" in words
        assert "What to do" not in words


def test_training_mail_when_promoted_then_figures_stand_beside_the_champions(cells: Project):
    mail = training_mail(RUN, OUTCOME, DECISION, {"state": "no_drift", "reasons": []})
    assert mail.subject == "Cells & <caps>: version 4 trained, promoted"
    for words in both(mail):
        assert words.index("0.968 (0.938 to 0.988)") < words.index("0.954 (0.924 to 0.974)")
        for expected in ["0.00731 (least cost)", "v-20261121", "too few to promise 1 %", "AUROC 0.968, not worse"]:
            assert expected in words
        assert "no drift" in words
        assert "Recall" not in words  # neither has it
    links = Page(mail.html).links
    assert "https://mlflow.example.com/#/models/cells/versions/4" in links
    run = "https://airflow.example.com/dags/cells_retrain/runs/manual__2026-11-21T08%3A12%3A00%2B00%3A00"
    assert run in links
    assert run in mail.text


CLASSIFIED = EvaluationReport(
    metrics={
        name: estimate(value)
        for name, value in {
            "accuracy": 0.83,
            "top_3_accuracy": 0.95,
            "macro_f1": 0.81,
            "calibration_error": 0.041,
            "coverage": 0.91,
            "set_size": 1.4,
        }.items()
    },
    confusion={
        "boletus/boletus": 9,
        "boletus/russula": 1,
        "amanita/amanita": 5,
        "amanita/russula": 4,
        "amanita/boletus": 1,
        "amanita/red/amanita/red": 10,
        "russula/russula": 8,
        "russula/amanita/red": 2,
    },
    by_type={
        "boletus": {"n": 10.0, "found": 9.0, "value": 0.9, "low": 0.56, "high": 0.99},
        "amanita": {"n": 10.0, "found": 5.0, "value": 0.5, "low": 0.19, "high": 0.81},
        "amanita/red": {"n": 10.0, "found": 10.0, "value": 1.0, "low": 0.69, "high": 1.0},
        "russula": {"n": 10.0, "found": 8.0, "value": 0.8, "low": 0.44, "high": 0.97},
    },
    counts={"images": 40, "classes": 4},
)


def test_training_mail_when_a_classifier_then_its_metrics_classes_and_difference_and_no_threshold(cells: Project):
    decision = replace(
        DECISION,
        why="Promoted: its accuracy, 0.83, meets the minimum of 0.7.",
        champion=VersionMetrics("3", accuracy=estimate(0.80), macro_f1=estimate(0.78)),
        challenger=VersionMetrics("4", accuracy=estimate(0.83), macro_f1=estimate(0.81)),
        difference=Estimate(0.03, -0.01, 0.07),
    )
    outcome = Outcome("4", promoted=True, metrics=CLASSIFIED.metrics)
    mail = training_mail(replace(RUN, task="classification"), outcome, decision, report=CLASSIFIED)
    for words in both(mail):
        for expected in (
            "0.830 (0.800 to 0.850)",
            "0.800 (0.770 to 0.820)",
            "Accuracy, top 3",
            "Macro F1",
            "Expected calibration error",
            "Coverage of the conformal set",
            "Classes in the conformal set",
            "+0.030 (-0.010 to +0.070)",
            "russula (4), boletus (1)",
            "amanita/red (2)",
        ):
            assert expected in words
        below = words[words.lower().index("recall by class") :]
        places = [below.index(name) for name in ("5 of 10", "8 of 10", "9 of 10", "10 of 10")]
        assert places == sorted(places)
        assert "threshold" not in words.lower()
        assert "anomal" not in words.lower()


def test_training_mail_when_a_detector_then_no_recall_by_class_and_no_difference_in_accuracy(cells: Project):
    for words in both(training_mail(RUN, OUTCOME, DECISION, report=CLASSIFIED)):
        assert "boletus" not in words
        assert "ifference" not in words


def test_training_mail_when_new_images_started_it_then_says_so(cells: Project):
    for words in both(training_mail(RUN, OUTCOME, DECISION, trigger="watch: 512 new images")):
        assert "Started by watch: 512 new images" in words
    assert "Started by" not in training_mail(RUN, OUTCOME, DECISION).text


def test_accuracy_mail_when_just_below_the_minimum_then_the_two_numbers_differ(cells: Project):
    worst = WorstClass("a <b>", 10, 1, estimate(0.1), [Confusion("c", 9, ["f" * 64])])
    measured = Measured(1000, Estimate(0.698, 0.668, 0.726), [worst])
    check = {
        "state": "below",
        "model_version": "4",
        "version_id": "d-1",
        "results": {"measured": measured.to_json(), "minimum": 0.7},
        "created_at": WHEN,
    }
    mail = accuracy_mail(cells, check, {"f" * 64: "cap & stem.png"})
    assert mail.subject == "Cells & <caps>: accuracy 69.8 % is below 70 %"
    for words in both(mail):
        for expected in ("69.8 %", "66.8 % to 72.6 %", "a <b>", "1 of 10", "c (9)", "cap & stem.png · ffffffffffff"):
            assert expected in words
        assert "What to do" in words or "WHAT TO DO" in words
    over = accuracy_mail(cells, check | {"state": "met", "model_version": "5"}, {}, check)
    assert "again" in over.subject
    for words in both(over):
        assert "69.8 %, version 4" in words
        assert "what to do" not in words.lower()


def test_digest_mail_when_a_classifier_then_the_share_of_unsure_predictions_and_no_defects(cells: Project):
    week = {
        "title": "week 46, 9 November to 15 November 2026",
        "flagged": "Unsure",
        "served": {"predictions": 40, "images": 40, "flagged": 0.25},
        "former": {"predictions": 0, "images": 0, "flagged": None},
        "expected": None,
        "days": [{"day": f"D{index}", "state": None} for index in range(7)],
        "latest": None,
        "trainings": [],
    }
    for words in both(digest_mail(cells, week)):
        assert "unsure 25 % –" in words.lower()
        assert "defective" not in words


def test_training_mail_when_ingest_left_something_out_then_names_it_and_else_is_silent(cells: Project):
    note = "good/index.csv names 2 files not there: row 3 <b>7</b>.png, row 9 8.png"
    mail = training_mail(RUN, OUTCOME, DECISION, None, [note])
    assert note in mail.text
    assert "row 3 &lt;b&gt;7&lt;/b&gt;.png" in mail.html
    assert "NOT USED" in mail.text
    assert "NOT USED" not in training_mail(RUN, OUTCOME, DECISION).text


def test_training_mail_when_there_is_no_champion_and_no_figure_then_says_so(cells: Project):
    decision = replace(
        DECISION, promoted=False, why="Not promoted: no anomalies.", champion=None, challenger=VersionMetrics("1")
    )
    mail = training_mail(RUN, Outcome("1"), decision)
    assert mail.subject.endswith("version 1 trained, not promoted")
    for words in both(mail):
        assert "no test images to give metrics on" in words
        assert "no champion yet" in words


def test_training_mail_when_an_evaluation_then_says_evaluated_and_links_to_its_dag(cells: Project):
    mail = training_mail(replace(RUN, kind="evaluate"), OUTCOME, replace(DECISION, promoted=False))
    assert "version 4 evaluated, not promoted" in mail.subject
    assert "/dags/cells_evaluate/runs/" in mail.text


def test_failure_mail_when_read_then_names_task_run_try_error_and_log(cells: Project):
    mail = failure_mail(
        {
            "project": "cells",
            "dag_id": "cells_retrain",
            "task_id": "ingest.ingest_batch",
            "run_id": "manual__2026-11-21T08:12:00+00:00",
            "map_index": 3,
            "label": "batch 4",
            "try_number": 4,
            "error": "S3 <refused> & closed",
            "doc": "Stores images.",
            "when": WHEN,
        }
    )
    for words in both(mail):
        for expected in ["ingest.ingest_batch – batch 4", "cells_retrain", "S3 <refused> & closed", "4, the last"]:
            assert expected in words
    log = "/tasks/ingest.ingest_batch/mapped/3?try_number=4"
    assert any(link.endswith(log) for link in Page(mail.html).links)


def test_failure_mail_when_the_process_was_killed_then_says_that_no_error_was_recorded(cells: Project):
    mail = failure_mail({"project": "cells", "dag_id": "cells_drift", "task_id": "drift", "run_id": "r"})
    assert "No error was recorded" in mail.text
    assert "/runs/r/tasks/drift\n" in mail.text


def test_digest_mail_when_a_week_was_empty_then_still_readable(cells: Project):
    nothing = {"predictions": 0, "images": 0, "flagged": None}
    week = {
        "title": "week 46, 9 November to 15 November 2026",
        "served": nothing,
        "former": nothing,
        "flagged": "Called anomalous",
        "expected": 0.02,
        "days": [{"day": f"D{index}", "state": None} for index in range(7)],
        "latest": None,
        "trainings": [],
    }
    for words in both(digest_mail(cells, week)):
        assert "Nothing was trained." in words
        assert "No drift report was made." in words


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\u2028", "\x85", "\x00"])
def test_mail_when_a_subject_holds_line_ends_then_it_is_one_line(end: str):
    mail = Mail(f"drift{end}Bcc: thief@example.com", "text", "<p>html</p>", ("a@example.com",))
    assert mail.subject == "drift Bcc: thief@example.com"


def test_mail_when_a_recipient_holds_a_line_end_then_refused():
    with pytest.raises(ValueError, match="control character"):
        Mail("subject", "text", "html", ("a@example.com\nBcc: thief@example.com",))


def test_mail_when_the_subject_is_long_then_shortened():
    assert len(Mail("x" * 500, "", "", ()).subject) == 180


def test_drift_mail_when_a_reason_holds_markup_then_it_stays_text(cells: Project):
    mail = drift_mail(cells, DRIFT | {"results": RESULTS | {"reasons": ["<script>alert(1)</script>"]}})
    assert "<script>" not in mail.html
    assert "<script>alert(1)</script>" in Page(mail.html).text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.968, "0.968"),
        (0.00731, "0.00731"),
        (0.0000699, "7e-05"),
        (0, "0"),
        (18342, "18,342"),
        (153.4, "153"),
        (None, "–"),
        (float("nan"), "–"),
        (True, "–"),
    ],
)
def test_number_when_shown_then_three_digits(value: Any, shown: str):
    assert number(value) == shown


def test_wording_when_shares_and_reasons_then_as_people_write_them():
    assert [percent(value) for value in (0.0213, 0.31, None)] == ["2.1 %", "31 %", "–"]
    assert reason("Not promoted: worse by 0.1.") == "Worse by 0.1."
    assert reason(None) == ""
