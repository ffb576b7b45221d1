"""Build the images of the gateway and of the CPU Triton without Docker, and classify a picture with them.

`make images-check`, as root on Debian with mmdebstrap, buildah and iproute2. Debian's buildah carries out the Dockerfiles, all
of them, on a Debian with Python made by mmdebstrap, where no registry gives python:3.12-slim-bookworm. The results then run in
a network of their own as a container engine would run them: as the image's user, from its entry point, in its environment,
on a root that cannot be written, with /tmp and the state directory in memory.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.running import ROOT

_WORK = ROOT / "build" / "images"
_BASE = "localhost/debian-python"
_PACKAGES = "python3,python3-pip,python3-venv,libpython3.11,ca-certificates"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_START_S = 120.0
_STATE = "/var/lib/tidegate"
_BUILDAH = ("buildah", "--storage-driver=vfs", f"--root={_WORK / 'storage'}", f"--runroot={_WORK / 'run'}")
_ABSENT = {"gateway": ("torch", "pytriton", "openvino", "onnxruntime"), "triton-cpu": ("torch",)}


def main() -> None:
    """Build, then serve in a namespace of its own."""
    if sys.argv[1:] == ["serve"]:
        serve()
        return
    build()
    own = ("unshare", "--mount", "--net", sys.executable, "-m", "tests.image_check", "serve")
    subprocess.run(own, cwd=ROOT, check=True)


def build() -> None:
    """The base, unless it is there from an earlier run, and both images."""
    _WORK.mkdir(parents=True, exist_ok=True)
    if _BASE not in _buildah("images", "--format={{.Name}}").split():
        archive = _WORK / "debian.tar"
        subprocess.run(
            ("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", archive), check=True
        )
        base = _buildah("from", "scratch")
        _buildah("add", "--quiet", base, str(archive), "/")
        # A network whose authority this machine trusts.
        _buildah("copy", "--quiet", base, str(_CERTIFICATES), str(_CERTIFICATES))
        _buildah("config", f"--env=PIP_CERT={_CERTIFICATES}", base)
        _buildah("commit", "--quiet", "--rm", base, _BASE)
        archive.unlink()
    for name in _ABSENT:
        started = time.monotonic()
        options = ("--isolation=chroot", "--format=docker", "--pull=false", f"--build-arg=PYTHON_IMAGE={_BASE}")
        place = (f"--file=docker/{name}.Dockerfile", f"--tag=localhost/tidegate/{name}", ".")
        _buildah("build", "--quiet", *options, *place)
        print(f"{name}: built in {time.monotonic() - started:.0f} s")


def serve() -> None:
    """Classify a picture through both images, beside the health checks that they declare."""
    subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
    # What is mounted here is to be seen here alone.
    subprocess.run(("mount", "--make-rprivate", "/"), check=True)
    with _image("triton-cpu") as triton, _image("gateway") as gateway:
        for image in (triton, gateway):
            image.must_be_hardened()
        gateway.run("migrate")
        key = gateway.run("keys", "create", "check").strip()
        elsewhere = {"TIDEGATE_HOST": "127.0.0.1", "TIDEGATE_GRPC_PORT": "9001", "TIDEGATE_METRICS_PORT": "9002"}
        behind = {"TIDEGATE_UPSTREAM__ADDRESS": "127.0.0.1:9001"}
        with triton.started(elsewhere, lambda words: words.replace(":8002", ":9002")), gateway.started(behind):
            answer = json.loads(_classify(key))
            best = answer["predictions"][0]
            assert best["label"] == "7", answer
            print(f"classified through both images: {answer['model']} {answer['version']} says {best['label']}")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was built, with its root mounted read-only."""

    name: str
    root: Path
    config: dict[str, Any]

    def command(self, arguments: tuple[str, ...], environment: dict[str, str], entrypoint: bool = True) -> list[str]:
        """What an engine would run."""
        stated = dict(line.partition("=")[::2] for line in self.config["Env"])
        words = [f"{name}={value}" for name, value in {**stated, "HOME": _STATE, **environment}.items()]
        program = [*(self.config["Entrypoint"] if entrypoint else ()), *(arguments or self.config["Cmd"])]
        # env -C: chroot itself begins in the root.
        user = f"--userspec={self.config['User']}"
        return ["chroot", user, str(self.root), "env", "-i", "-C", self.config["WorkingDir"], *words, *program]

    def run(self, *arguments: str, entrypoint: bool = True) -> str:
        """The output of a command that ends."""
        return subprocess.check_output(self.command(arguments, {}, entrypoint), text=True)

    def must_be_hardened(self) -> None:
        """It is no root's, cannot be written, and has nothing heavy that it does not need."""
        user = self.run("id", "-u", entrypoint=False).strip()
        assert user == "10001", user
        written = subprocess.run(
            self.command(("touch", "/opt/tidegate/x"), {}, False), check=False, capture_output=True
        )
        assert b"Read-only file system" in written.stderr, written.stderr
        for package in _ABSENT[self.name]:
            found = f"import importlib.util; print(importlib.util.find_spec({package!r}))"
            assert self.run("python3", "-c", found, entrypoint=False) == "None\n", package
        size = subprocess.check_output(("du", "-xsm", self.root), text=True).split()[0]
        print(f"{self.name}: user {user}, root read-only, without {', '.join(_ABSENT[self.name])}, {size} MB on disk")

    @contextmanager
    def started(self, environment: dict[str, str], as_run: Callable[[str], str] = str) -> Iterator[None]:
        """Run its own command until its own health check passes, for the length of the block.

        Args:
            as_run: The health check with the ports of `environment`.
        """
        check = [as_run(word) for word in self.config["Healthcheck"]["Test"][1:]]
        with (_WORK / f"{self.name}.log").open("wb") as log:
            process = subprocess.Popen(self.command((), environment), stdout=log, stderr=log)
        try:
            began = time.monotonic()
            command = self.command(tuple(check), {}, False)
            while subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0:
                words = (_WORK / f"{self.name}.log").read_text()
                assert process.poll() is None and time.monotonic() - began < _START_S, words
                time.sleep(0.2)
            print(f"{self.name}: healthy after {time.monotonic() - began:.0f} s")
            yield
        finally:
            process.terminate()
            status = process.wait(60)
        assert status == 0, f"{self.name} ended with status {status}"
        print(f"{self.name}: ended by SIGTERM with status 0")


@contextmanager
def _image(name: str) -> Iterator[Image]:
    container = _buildah("from", "--pull=false", f"localhost/tidegate/{name}")
    try:
        root = Path(_buildah("mount", container))
        config = json.loads(_buildah("inspect", "--type=container", container))["Docker"]["config"]
        subprocess.run(("mount", "--bind", root, root), check=True)
        subprocess.run(("mount", "-t", "proc", "proc", root / "proc"), check=True)
        for place in ("dev", "dev/shm"):
            subprocess.run(("mount", "--bind", f"/{place}", root / place), check=True)
        owner = int(config["User"].partition(":")[0])
        for place, options in (("tmp", "mode=1777"), (_STATE.lstrip("/"), f"uid={owner},gid={owner},mode=0700")):
            subprocess.run(("mount", "-t", "tmpfs", "-o", options, "tmpfs", root / place), check=True)
        subprocess.run(("mount", "-o", "remount,bind,ro", root), check=True)
        yield Image(name, root, config)
    finally:
        subprocess.run(("umount", "--recursive", "--lazy", root), check=False)
        _buildah("rm", container)


def _classify(key: str) -> bytes:
    url = "http://127.0.0.1:8000/v1/models/digits/classify"
    header = f"Authorization: Bearer {key}"
    picture = f"@{ROOT / 'examples' / 'seven.png'}"
    return subprocess.check_output(("curl", "--silent", "--fail", "-H", header, "--data-binary", picture, url))


def _buildah(*arguments: str) -> str:
    return subprocess.check_output((*_BUILDAH, *arguments), cwd=ROOT, text=True).strip()


if __name__ == "__main__":
    if os.geteuid() != 0 or shutil.which("buildah") is None or shutil.which("mmdebstrap") is None:
        sys.exit("run as root, with Debian's buildah, mmdebstrap and iproute2 installed")
    main()
