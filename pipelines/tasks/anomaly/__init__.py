"""Anomaly detection: is this part like the good ones, and where is it not?

A restoration network learns to remove synthetic defects from good images; what it cannot restore is anomalous.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
