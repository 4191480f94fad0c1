"""Prove the containers on a real Docker Engine: `make docker-proof`, or `python3 tests/docker/prove.py [--no-build]`.

Builds both images, starts the whole stack on free ports under a name of its own, holds every container to what
docker-compose.yaml promises, trains through Airflow, asks serving for two verdicts, reads the mail, and takes it all
away again. `--stand-ins` puts stand-ins in place of SeaweedFS and Mailpit, `--keep` leaves the stack.
"""

import argparse
import base64
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
SERVING_LIMIT = 450_000_000  # bytes
PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "SERVING_PORT", "S3_PORT", "SMTP_PORT", "MAILPIT_PORT")
RUN_SECONDS = 1500.0
DRAW = """
import io
from pathlib import Path
from PIL import Image
from include.demo_images import draw, write_images
from pipelines.ingest.import_folder import import_folder
from pipelines.storage.s3 import Storage
write_images(Path("/tmp/cells"), good=160, anomalies=40)
print(*import_folder(Path("/tmp/cells"), "proof").lines, sep="\\n")
for name, defect in (("good", None), ("scratched", "scratch")):
    held = io.BytesIO()
    Image.fromarray(draw(7, 90_000, defect)[0]).save(held, format="PNG")
    Storage("proof").put(f"proof/probe/{name}.png", held.getvalue(), "image/png")
"""


class Proof:
    """One stack of containers, with its ports and secrets in an env file of its own."""

    def __init__(self, folder: Path, stand_ins: bool) -> None:
        self.env_file = folder / "proof.env"
        subprocess.run(
            [sys.executable, ROOT / "include/docker/make_env.py", self.env_file], check=True, stdout=subprocess.DEVNULL
        )
        with self.env_file.open("a") as file:
            file.writelines(f"{name}={port}\n" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True))
        lines = [line.partition("=") for line in self.env_file.read_text().splitlines() if line[:1].isupper()]
        self.env = {name: value for name, _, value in lines}
        files = ["docker-compose.yaml", "tests/docker/proof.yaml"] + ["tests/docker/stand-ins.yaml"] * stand_ins
        self.command = ["docker", "compose", "--project-name", "inspectline-proof", "--env-file", str(self.env_file)]
        self.command += [word for file in files for word in ("--file", file)]

    def compose(self, *arguments: str, check: bool = True, quiet: bool = False) -> str:
        """Run `docker compose` and return what it prints on standard output."""
        errors = subprocess.DEVNULL if quiet else None
        run = subprocess.run(
            [*self.command, *arguments], cwd=ROOT, check=check, text=True, stdout=subprocess.PIPE, stderr=errors
        )
        return run.stdout

    def inside(self, service: str, code: str) -> str:
        """Run Python code in a service's container and return what it prints."""
        return self.compose("exec", "-T", service, "python", "-c", code)

    def get(
        self, port: str, path: str, host: str = "127.0.0.1", body: Any = None, token: str = "", login: str = ""
    ) -> bytes:
        """Call a published port on this machine (`host` is what the request says) and return the answer's body."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.env[port]}{path}")
        request.add_header("Host", f"{host}:{self.env[port]}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if login:
            request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    began = time.monotonic()
    print(f"· {name} …", flush=True)
    yield
    print(f"  {name}: {time.monotonic() - began:.0f} s", flush=True)


def check_images(proof: Proof) -> None:
    """Say how large our images are, and refuse a serving image that is not thin."""
    for image in ("inspectline-airflow:local", "inspectline-serving:local"):
        told = subprocess.run(
            ["docker", "image", "inspect", "-f", "{{.Size}}", image], check=True, text=True, stdout=subprocess.PIPE
        )
        size = int(told.stdout)
        print(f"  {image}: {size / 1e6:.0f} MB")
        assert "serving" not in image or size < SERVING_LIMIT, "serving's image is to stay under 450 MB"


def check_containers(proof: Proof) -> None:
    """Hold every running container to what the file promises: nobody is root, roots are read-only, ports are ours."""
    running = [json.loads(line) for line in proof.compose("ps", "--format", "json").splitlines()]
    for container in running:
        service = container["Service"]
        assert container["Health"] == "healthy", f"{service} is {container['Health']}"
        inspected = subprocess.run(
            ["docker", "inspect", container["ID"]], check=True, text=True, stdout=subprocess.PIPE
        )
        host = json.loads(inspected.stdout)[0]["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        bindings = [each["HostIp"] for port in (host["PortBindings"] or {}).values() for each in port]
        assert set(bindings) <= {"127.0.0.1"}, f"{service} listens on {bindings}"
        user = proof.compose("exec", "-T", service, "id", "-u").strip()
        assert user != "0", f"{service} runs as root"
        written = proof.compose("exec", "-T", service, "sh", "-c", "touch /etc/proof 2>&1 || true")
        assert "Read-only" in written, f"{service} can write its root"
    print(f"  {len(running)} containers are healthy, none is root, no root can be written, ports are on 127.0.0.1")


def retrain(proof: Proof) -> dict[str, str]:
    """Run `proof_retrain` to its end through Airflow's REST API and return the state of each task."""
    login = {"username": "admin", "password": proof.env["AIRFLOW_ADMIN_PASSWORD"]}
    token = json.loads(proof.get("AIRFLOW_PORT", "/auth/token", body=login))["access_token"]
    runs = "/api/v2/dags/proof_retrain/dagRuns"
    run = json.loads(
        proof.get("AIRFLOW_PORT", runs, body={"logical_date": None, "conf": {"force": True}}, token=token)
    )["dag_run_id"]
    end, said = time.monotonic() + RUN_SECONDS, dict[str, str]()
    while time.monotonic() < end:
        state = json.loads(proof.get("AIRFLOW_PORT", f"{runs}/{run}", token=token))["state"]
        found = json.loads(proof.get("AIRFLOW_PORT", f"{runs}/{run}/taskInstances?limit=200", token=token))
        for task in found["task_instances"]:
            name = task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else "")
            if task["state"] in ("success", "failed", "skipped", "upstream_failed") and said.get(name) != task["state"]:
                said[name] = task["state"]
                print(f"  {name}: {task['state']} ({task['duration'] or 0:.1f} s)", flush=True)
        if state in ("success", "failed"):
            assert state == "success", f"the run {run} ended as {state}"
            return said
        time.sleep(3)
    raise AssertionError(f"the run {run} did not end within {RUN_SECONDS:.0f} s")


def verdict(proof: Proof, image_url: str) -> dict[str, Any]:
    """Return serving's answer, waiting at most two minutes for it to have a champion."""
    end = time.monotonic() + 120
    login = f"admin:{proof.env['SERVING_ADMIN_PASSWORD']}"
    while True:
        try:
            said = proof.get("SERVING_PORT", "/predict", body={"image_url": image_url}, login=login)
            return dict(json.loads(said))
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > end:
                raise AssertionError(f"serving answers {error.code}: {error.read().decode()}") from error
            time.sleep(2)


def check_serving(proof: Proof) -> None:
    """Ask serving for a good and a scratched cell that training never saw."""
    for name in ("good", "scratched"):
        answer = verdict(proof, f"s3://proof/proof/probe/{name}.png")
        assert {"is_anomaly", "reconstruction_error", "threshold", "model_version"} <= set(answer)
        print(f"  {name}: {answer}")


def check_links(proof: Proof) -> None:
    """Open a presigned link as people find it in a report: on this machine, by the name that it carries."""
    link = urlsplit(
        proof.inside(
            "worker", "from pipelines.storage.s3 import Storage; print(Storage('proof').url('proof/probe/good.png'))"
        ).strip()
    )
    assert link.port == int(proof.env["S3_PORT"])
    body = proof.get("S3_PORT", f"{link.path}?{link.query}", host=str(link.hostname))
    assert body.startswith(b"\x89PNG")
    print(f"  a presigned link opens at {link.scheme}://{link.netloc}")
    assert proof.get("MLFLOW_PORT", "/health", host="localhost") == b"OK"


def check_mail(proof: Proof, stand_ins: bool) -> None:
    """Find the mail about the training where the catcher keeps it."""
    if stand_ins:
        folder = "/var/cache/inspectline/mail/new"
        listing = f"from pathlib import Path; print(*(mail.read_text() for mail in Path('{folder}').iterdir()))"
        mails = proof.inside("mailpit", listing)
    else:
        mails = proof.get("MAILPIT_PORT", "/api/v1/messages").decode()
    assert "line-quality@example.com" in mails
    print("  the mail about the training is there")


def prove(proof: Proof, build: bool, stand_ins: bool) -> None:
    """Do all of it; an AssertionError says what does not hold."""
    if build:
        with step("build the images"):
            proof.compose("build", quiet=True)
    check_images(proof)
    with step("start the stack"):
        proof.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "900", quiet=True)
    check_containers(proof)
    with step("draw and import images"):
        print("  " + proof.inside("worker", DRAW).strip())
    with step("retrain"):
        states = retrain(proof)
    assert "success" in states.values()
    check_serving(proof)
    check_links(proof)
    check_mail(proof, stand_ins)


def main(arguments: list[str]) -> int:
    """Run the proof and return the exit status."""
    parser = argparse.ArgumentParser(prog="prove.py", description=__doc__.splitlines()[0])
    parser.add_argument("--no-build", action="store_true", help="the images inspectline-…:local are there")
    parser.add_argument("--stand-ins", action="store_true", help="without the images of SeaweedFS and Mailpit")
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="inspectline-proof-"))
    proof = Proof(folder, options.stand_ins)
    try:
        prove(proof, not options.no_build, options.stand_ins)
    except (AssertionError, subprocess.CalledProcessError, OSError) as error:
        print(proof.compose("ps", "--all", check=False), proof.compose("logs", "--tail", "30", check=False), sep="\n")
        print(f"NOT proved: {error}", file=sys.stderr)
        return 1
    finally:
        if options.keep:
            print(f"left running: {' '.join(proof.command)}")
        else:
            proof.compose("down", "--volumes", check=False, quiet=True)
            shutil.rmtree(folder)
    print("proved")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
