"""The baselines of the serving benchmark: a bare loop in one process, and a Flask view around `keras.Model.predict`.

python -m benchmarks.serving_baselines loop MODEL_FOLDER IMAGES SECONDS     # prints its figures as JSON
MODEL=model.keras gunicorn 'benchmarks.serving_baselines:plain_view()'      # answers POST /predict
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.load import distinct, percentile

_MAX_PIXELS = 50_000_000


def loop(package: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Decode and score one image after the other for `seconds`, in this thread alone.

    Returns `rate` (images per second), `p50`, `p95`, `p99` (milliseconds) and `cpu` (CPU milliseconds per image).
    """
    from pipelines.images.decode import open_image
    from pipelines.registry.package import GRAPH
    from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
    from pipelines.tasks.anomaly.package import read_card
    from pipelines.tasks.anomaly.predict import predict

    card = read_card(package)
    graph = ScoringGraph(package / GRAPH, card.input_size, card.resize, threads=1)
    files = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]

    def once(number: int) -> float:
        data = distinct(files[number % len(files)])
        start = time.perf_counter()
        predict(graph, [open_image(data, max_pixels=_MAX_PIXELS, min_side=32).pixels])
        return time.perf_counter() - start

    for number in range(10):
        once(number)
    times: list[float] = []
    began, worked = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        times.append(once(len(times)))
    taken, cpu = time.perf_counter() - began, time.process_time() - worked
    times.sort()
    quantiles = {f"p{share}": 1000 * percentile(times, share / 100) for share in (50, 95, 99)}
    return {"rate": len(times) / taken, "answers": len(times), "cpu": 1000 * cpu / len(times), **quantiles}


def plain_view() -> Any:
    """Return a minimal Flask app that scores an image with `keras.Model.predict`."""
    import io

    import keras
    import numpy as np
    from flask import Flask, request
    from PIL import Image

    from pipelines.tasks.anomaly.restoration.inference_model import inspection_model, load_network

    app = Flask(__name__)
    model: keras.Model = inspection_model(load_network(Path(os.environ["MODEL"])))
    side = model.input_shape[1]

    @app.post("/predict")
    def predict() -> dict[str, float]:
        image = Image.open(io.BytesIO(request.get_data())).convert("RGB").resize((side, side))
        return {"score": float(model.predict(np.asarray(image)[np.newaxis], verbose=0)["score"][0])}

    return app


if __name__ == "__main__":
    _, _, package, folder, seconds = sys.argv
    print(json.dumps(loop(Path(package), Path(folder), float(seconds))))
