"""How metrics are titled and written, and from how many anomalies on they count: the same wherever people read them."""

# Fewer test anomalies than this give metrics with wide intervals, which decide nothing.
ENOUGH_ANOMALIES = 20
# In the order in which tables show them.
METRIC_TITLES = {
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
    """Return a metric's title; of one without an entry in `METRIC_TITLES`, its name as a heading."""
    return METRIC_TITLES.get(name) or (name[:1].upper() + name[1:]).replace("_", " ")


def percent(rate: float) -> str:
    """Return a rate in three significant digits: `1 %`, `2.04 %`."""
    return f"{100 * rate:.3g} %"
