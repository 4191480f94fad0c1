"""What a run that ended well says of itself, as `trainings` keeps it."""

OUTCOME = {
    "metrics": {
        "reconstruction_error_validation": {"value": 0.03, "low": 0.02, "high": 0.04},
        "reconstruction_error_anomaly": {"value": 0.5, "low": 0.4, "high": 0.6},
    },
    "threshold": 0.12,
    "promoted": True,
    "version": "7",
}
