"""The restoration autoencoder: network, loss, score and the synthetic defects it is trained on.

`keras.ops` only.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
