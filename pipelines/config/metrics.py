"""Titles and formats of metrics, shared by all reports, and the least number of anomalies for meaningful metrics."""

# With fewer test anomalies the confidence intervals are too wide for a decision.
ENOUGH_ANOMALIES = 20
# In the order of tables.
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "top_3_accuracy": "Accuracy, top 3",
    "macro_f1": "Macro F1",
    "calibration_error": "Expected calibration error",
    "coverage": "Coverage of the conformal set",
    "set_size": "Classes in the conformal set",
    "auroc": "AUROC",
    "synthetic_auroc": "AUROC, synthetic defects",
    "recall": "Recall",
    "false_positive_rate": "False-positive rate",
    "precision": "Precision",
    "precision_on_line": "Precision at the expected defect rate",
    "f1": "F1",
    "average_precision": "Average precision",
    "pixel_auroc": "Pixel AUROC",
    "aupro": "AUPRO",
    "reconstruction_error_validation": "Mean reconstruction error, validation",
    "reconstruction_error_anomaly": "Mean reconstruction error, anomalies",
}


def metric_title(name: str) -> str:
    """Return a metric's title: its entry in `METRIC_TITLES`, else its capitalised name."""
    return METRIC_TITLES.get(name) or (name[:1].upper() + name[1:]).replace("_", " ")


def percent(rate: float) -> str:
    """Format a rate in [0, 1] as a percentage with three significant digits: `1 %`, `2.04 %`."""
    return f"{100 * rate:.3g} %"
