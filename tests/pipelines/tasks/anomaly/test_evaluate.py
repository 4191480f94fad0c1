"""Calibration and evaluation of a real package on real samples, logged to a real MLflow server."""

import json

import mlflow
import numpy as np
import pytest
from PIL import Image

from pipelines.datasets.original_images import original_images
from pipelines.datasets.versions import freeze, read_manifest
from pipelines.images.decode import open_image
from pipelines.images.descriptors import DESCRIPTORS, describe
from pipelines.registry.package_store import fetch_files, fetched_package
from pipelines.storage.s3 import Storage, read_uri, split_uri
from pipelines.tasks.anomaly.calibrate import EXAMPLES, calibrate
from pipelines.tasks.anomaly.compare import score_contenders
from pipelines.tasks.anomaly.evaluate import evaluate
from pipelines.tasks.anomaly.onnx_graph import EVIDENCE
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import predict, prepare_image
from pipelines.tasks.anomaly.subset_scoring import prepared_images
from pipelines.training import runs
from tests.pipelines.line import pack_of
from tests.pipelines.packages import good_image, make_package


@pytest.fixture
def run_of(line, tmp_path):
    """Return a function that fills the line, begins a training and leaves an exported model."""

    def make(anomalies=True, masks=True, validation=24):
        for side, count in (("training", 16), ("validation", validation), ("test", 15)):
            line.add(side, "good", count)
        if anomalies:
            line.add("validation", "anomaly", 10, kind="dent")
            line.add("test", "anomaly", 6, kind="dent", masks=masks)
            line.add("test", "anomaly", 4, kind="scratch")
        run = runs.begin(freeze(line.project), {}, force=False, dag_run_id="manual__1")
        return run, line.export(run, tmp_path / "exported")

    return make


def logged(run):
    """Return everything in the MLflow run that a repeated step might double."""
    client = mlflow.MlflowClient()
    mlflow_run = client.get_run(run.mlflow_run_id)
    files, folders = [], [""]
    while folders:
        for item in client.list_artifacts(run.mlflow_run_id, folders.pop()):
            (folders if item.is_dir else files).append(item.path)
    points = {name: len(client.get_metric_history(run.mlflow_run_id, name)) for name in mlflow_run.data.metrics}
    return mlflow_run, sorted(files), points


def test_calibrate_makes_a_complete_package_with_threshold_reference_and_origin(run_of, line, tmp_path):
    run, model = run_of()
    calibrated = calibrate(run, pack_of(run), model)
    with fetched_package(calibrated.package_uri, AnomalyPackage.open) as package:
        card = package.card
        manifest = read_manifest(run.dataset.manifest_uri)
        good = manifest[manifest["subset"] == "validation"].sort_values("sha256")
        originals = list(original_images(line.project, good))
        expected = np.array([prediction.score for prediction in predict(package, originals)], np.float32)
        np.testing.assert_allclose(package.reference["score"], expected, atol=1e-6)
        assert list(package.reference["sha256"]) == list(good["sha256"])
        assert tuple(package.reference["descriptor_names"]) == DESCRIPTORS
        assert package.reference["descriptors"].shape == (24, len(DESCRIPTORS))
        assert [prediction.tiles.shape for prediction in package.examples] == [(1, 64, 64, 3)] * EXAMPLES
        again = [prediction.score for prediction in predict(package, package.reference["examples"])]
        np.testing.assert_allclose(again, expected[:EXAMPLES], atol=1e-6)
    assert (card.threshold, card.threshold_policy) == (calibrated.threshold, "least_cost")
    assert card.threshold >= card.threshold_detail.thresholds["conformal"].value
    assert card.score_range.max == pytest.approx(expected.max())
    assert (card.training_id, card.version_id) == (run.training_id, run.version_id)
    assert card.package_versions["onnxruntime"]
    assert card.git_revision == run.git_revision
    assert calibrated.notes == []


def test_calibrate_with_few_validation_images_makes_the_weaker_promise_and_says_so(run_of):
    run, model = run_of(anomalies=False, validation=9)
    calibrated = calibrate(run, pack_of(run), model)
    assert calibrated.policy == "conformal"
    assert any("cannot be promised from 9 good validation images" in note for note in calibrated.notes)
    assert any("needs 10 anomaly/threshold samples and there are 0" in note for note in calibrated.notes)
    with fetched_package(calibrated.package_uri, AnomalyPackage.open) as package:
        assert package.card.threshold_detail.promise_kept_at == pytest.approx(0.1)
        assert package.card.threshold_detail.notes == calibrated.notes


def ever_noisier(generator: np.random.Generator) -> np.ndarray:
    """Return uint8 [64, 256, 3]: grey with noise that grows from left to right, so that no two parts are alike."""
    deviation = np.linspace(2, 60, 256)[:, np.newaxis]
    return np.clip(generator.normal(128, deviation, (64, 256, 3)), 0, 255).astype(np.uint8)


def test_calibrate_of_long_images_takes_the_score_of_the_whole_image_and_not_of_a_tile(
    line, projects, network_graph, tmp_path
):
    projects.write(line.project, model={"input_size": 32, "resize": "tile"})
    for side, count in (("training", 16), ("validation", 6), ("test", 2)):
        line.add(side, "good", count, draw=ever_noisier)
    run = runs.begin(freeze(line.project), {}, force=False, dag_run_id="manual__1")
    calibrated = calibrate(run, pack_of(run), line.export(run, tmp_path / "exported", graph=network_graph))
    manifest = read_manifest(run.dataset.manifest_uri)
    good = manifest[manifest["subset"] == "validation"].sort_values("sha256")
    originals = list(original_images(line.project, good))
    with fetched_package(calibrated.package_uri, AnomalyPackage.open) as package:
        assert EVIDENCE in {output.name for output in package.graph.session().get_outputs()}
        whole = [prediction.score for prediction in predict(package, originals)]
        np.testing.assert_allclose(package.reference["score"], whole, atol=1e-6)
        # Of six, the largest promises the least.
        assert calibrated.threshold == pytest.approx(max(whole), abs=1e-6)
        for image, score in zip(originals, whole, strict=True):
            tiles = prepare_image(package, image).tiles
            assert tiles.shape == (5, 32, 32, 3)
            alone = np.array([prediction.score for prediction in predict(package, list(tiles))])
            assert np.abs(alone - score).min() > 1e-4


def test_calibrate_when_retried_sets_the_same_threshold_in_the_same_place(run_of, line):
    run, model = run_of()
    first, second = calibrate(run, pack_of(run), model), calibrate(run, pack_of(run), model)
    assert first == second
    prefix = split_uri(first.package_uri + "/")[1]
    names = {item.key.removeprefix(prefix) for item in Storage(line.bucket).list(prefix)}
    assert names == {"model.onnx", "model.keras", "model.json", "reference.npz"}


def test_prepared_images_from_pack_and_from_originals_score_the_same(run_of, line, tmp_path):
    run, model = run_of(anomalies=False)
    calibrated = calibrate(run, pack_of(run), model)
    with fetched_package(calibrated.package_uri, AnomalyPackage.open) as package:
        rows = read_manifest(run.dataset.manifest_uri).sort_values("sha256", ascending=False)
        packed = [
            prediction.score
            for prediction in predict(package, list(prepared_images(run, pack_of(run), rows, package.graph)))
        ]
        sent = [prediction.score for prediction in predict(package, list(original_images(line.project, rows)))]
    assert packed == sent


def test_calibrate_and_evaluate_when_images_are_deep_then_score_as_serving_does_at_the_models_bit_depth(line, tmp_path):
    def dim(generator: np.random.Generator) -> np.ndarray:
        return (good_image(generator, 64)[:48] // 8).astype(np.uint8)

    for side, count in (("training", 16), ("validation", 6), ("test", 2)):
        line.add(side, "good", count, draw=dim, bits=12)
    line.add("test", "good", 1, draw=lambda _: np.full((48, 64, 3), 255, np.uint8), bits=12)
    run = runs.begin(freeze(line.project), {}, force=False, dag_run_id="manual__1")
    assert run.dataset.bits == 12
    calibrated = calibrate(run, pack_of(run), line.export(run, tmp_path / "exported"))
    evaluate(run, pack_of(run), calibrated)
    manifest = read_manifest(run.dataset.manifest_uri)
    good = manifest[manifest["subset"] == "validation"].sort_values("sha256")
    with fetched_package(calibrated.package_uri, AnomalyPackage.open) as package:
        assert package.card.bits == 12
        served = [
            open_image(Storage(line.bucket).get(key), max_pixels=10**6, min_side=1, bits=package.card.bits).pixels
            for key in good["key"]
        ]
        scores = [prediction.score for prediction in predict(package, served)]
        np.testing.assert_allclose(package.reference["score"], scores, atol=1e-6)
        brightness = package.reference["descriptors"][:, DESCRIPTORS.index("brightness")]
        np.testing.assert_allclose(brightness, [describe(pixels)["brightness"] for pixels in served], atol=1e-6)
        # A champion of before scales each image by itself, whatever the pack holds.
        itself = [prepare_image(package, pixels).tiles for pixels in original_images(line.project, good)]
        prepared = prepared_images(run, pack_of(run), good, package.graph, None)
        for image, tiles in zip(prepared, itself, strict=True):
            np.testing.assert_array_equal(image.tiles, tiles)


def test_compare_when_the_champion_has_another_bit_depth_then_each_decodes_at_its_own(line, tmp_path):
    line.add("test", "good", 3, bits=14)
    line.add("test", "anomaly", 3, bits=14)
    line.add("training", "good", 16, bits=14)
    line.add("validation", "good", 4, bits=14)
    rows = read_manifest(freeze(line.project).manifest_uri)
    good, anomalies = rows[rows["subset"] == "test"], rows[rows["subset"] == "anomaly/test"]
    packages = [
        AnomalyPackage.open(make_package(tmp_path / str(bits), size=64, bits=bits)) for bits in (14, 16, None, 12)
    ]
    own = score_contenders(line.project, packages[0], packages[0], good, anomalies)
    wider = score_contenders(line.project, packages[0], packages[1], good, anomalies)
    np.testing.assert_array_equal(own[0][0], wider[0][0])
    assert wider[1] is not None
    assert wider[1][1].max() < own[1][1].max() / 2
    narrower, champion, failure = score_contenders(line.project, packages[0], packages[3], good, anomalies)
    np.testing.assert_array_equal(narrower[1], own[0][1])
    assert champion is None
    assert "image.bits" in failure
    assert score_contenders(line.project, packages[0], packages[2], good, anomalies)[1] is not None


def test_evaluate_gives_every_figure_with_its_interval_from_test_subsets_alone(run_of, line):
    run, model = run_of()
    report = evaluate(run, pack_of(run), calibrate(run, pack_of(run), model))
    assert report.counts == {"good": 15, "anomalies": 10, "masked_anomalies": 6}
    assert set(report.metrics) == {
        "auroc",
        "average_precision",
        "f1",
        "precision",
        "precision_on_line",
        "recall",
        "false_positive_rate",
        "reconstruction_error_validation",
        "reconstruction_error_anomaly",
        "pixel_auroc",
        "aupro",
    }
    for estimate in report.metrics.values():
        assert estimate.low <= estimate.value <= estimate.high
    assert report.metrics["auroc"].value == 1
    assert report.metrics["auroc"].low < 0.95
    assert report.metrics["pixel_auroc"].value > 0.9
    assert report.metrics["aupro"].value > 0.6
    assert report.confusion == {"true_positive": 10, "false_negative": 0, "false_positive": 0, "true_negative": 15}
    assert (report.by_type["dent"]["n"], report.by_type["scratch"]["found"]) == (6, 4)
    assert any("6 of 10 test anomalies with a mask" in note for note in report.notes)
    stored = json.loads(read_uri(report.report_uri))
    assert stored["metrics"] == report.to_json()["metrics"]
    assert stored["task"] == "anomaly"
    assert report.report_uri.endswith(f"{line.project}/{run.version_id}/evaluation/{run.training_id}.json")


def test_evaluate_logs_metrics_dataset_figures_and_tables_and_again_doubles_nothing(run_of, tmp_path):
    run, model = run_of()
    package = calibrate(run, pack_of(run), model)
    report = evaluate(run, pack_of(run), package)
    first, files, points = logged(run)
    evaluate(run, pack_of(run), package)
    second, files_again, points_again = logged(run)

    metrics = first.data.metrics
    for name, estimate in report.metrics.items():
        assert (metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"]) == pytest.approx(
            (estimate.value, estimate.low, estimate.high)
        )
    assert metrics["threshold"] == pytest.approx(package.threshold)
    (dataset,) = first.inputs.dataset_inputs
    assert dataset.dataset.name == run.version_id
    assert run.dataset.manifest_uri in dataset.dataset.source
    assert {
        "evaluation.json",
        "figures/confusion_matrix.png",
        "figures/score_histogram.png",
        "figures/curves.png",
        "figures/worst_misses.png",
        "figures/worst_alarms.png",
        "tables/metrics.json",
        "tables/thresholds.json",
        "tables/test_scores.json",
    } <= set(files)
    assert (files_again, points_again) == (files, points)
    assert set(points.values()) == {1}
    assert len(second.inputs.dataset_inputs) == 1
    assert second.data.metrics == metrics
    folder = mlflow.artifacts.download_artifacts(run_id=run.mlflow_run_id, dst_path=str(tmp_path / "got"))
    for path in (tmp_path / "got").rglob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300, f"{path} in {folder}"


def test_evaluate_without_anomalies_gives_what_it_can_and_names_what_it_cannot(run_of):
    run, model = run_of(anomalies=False)
    report = evaluate(run, pack_of(run), calibrate(run, pack_of(run), model))
    assert set(report.metrics) == {"false_positive_rate", "reconstruction_error_validation"}
    (note,) = [note for note in report.notes if "no test anomalies" in note]
    assert "AUROC, average precision, F1, precision, recall" in note
    assert "curves.png" not in " ".join(logged(run)[1])
    assert "figures/worst_alarms.png" in logged(run)[1]


def test_evaluate_without_masks_says_that_pixel_figures_cannot_be_given(run_of):
    run, model = run_of(masks=False)
    report = evaluate(run, pack_of(run), calibrate(run, pack_of(run), model))
    assert "aupro" not in report.metrics
    assert "No test anomaly has a mask: pixel AUROC and AUPRO cannot be given." in report.notes


def test_fetch_files_of_a_package_without_a_graph_says_which_step_to_run(line, tmp_path):
    from pipelines.errors import BadPackage

    with pytest.raises(BadPackage, match="run the export step again"):
        fetch_files(f"s3://{line.bucket}/nothing/here", tmp_path)
    with pytest.raises(BadPackage):
        AnomalyPackage.open(tmp_path)
