"""The network on JAX, the backend for GPUs that TensorFlow cannot use: it trains there and finds what it finds on
TensorFlow.
"""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from pipelines.tasks.anomaly.restoration.inference_model import load_network
from tests.pipelines.tasks.anomaly.pictures_of_parts import defective_parts, good_parts

TRAIN = """
import json, sys
from pathlib import Path
import keras
import numpy as np
from pipelines.tasks.anomaly.fitting.state import FitSettings
from pipelines.tasks.anomaly.fitting.trainer import fit
folder = Path(sys.argv[1])
images, judged = np.load(folder / "good.npy"), np.load(folder / "judged.npy")
losses = []
settings = FitSettings(input_size=32, batch_size=8, steps=160, seconds=float("inf"), precision="float32")
fitted = fit(images, settings, on_progress=lambda progress: progress.ended and losses.append(progress.loss))
fitted.network.save(folder / "model.keras")
outputs = fitted.network.predict_on_batch(judged)
np.savez(folder / "outputs.npz", **{name: keras.ops.convert_to_numpy(output) for name, output in outputs.items()})
(folder / "report.json").write_text(json.dumps({"backend": keras.backend.backend(), "losses": losses}))
"""


def test_fit_on_jax_learns_and_its_network_finds_the_same_on_tensorflow(tmp_path: Path, monkeypatch):
    judged = np.concatenate([good_parts(4), defective_parts(4)]).astype(np.float32) / 255
    np.save(tmp_path / "good.npy", good_parts(16))
    np.save(tmp_path / "judged.npy", judged)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path)], check=True)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["backend"] == "jax"
    assert report["losses"][-1] < 0.7 * report["losses"][0]
    assert keras.backend.backend() == "tensorflow"
    here = load_network(tmp_path / "model.keras").predict_on_batch(judged)
    with np.load(tmp_path / "outputs.npz") as there:
        assert set(there.files) == set(here)
        for name, output in here.items():
            np.testing.assert_allclose(output, there[name], rtol=1e-3, atol=1e-4, err_msg=name)
