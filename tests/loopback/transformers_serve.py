"""A server that nobody here wrote: `transformers serve` with a folder of weights, on the loopback interface."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers.utils.import_utils import is_serve_available

START_SECONDS = 240
SERVE = Path(sys.executable).with_name("transformers")

needs_serve = [
    pytest.mark.skipif(not is_serve_available(), reason="the extra `serve` (transformers[serving]) is not installed"),
    pytest.mark.skipif(not SERVE.exists() and shutil.which("transformers") is None, reason="no `transformers` command"),
]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The server's base URL. In float32: 16-bit weights are many times slower on most CPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(SERVE), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command += ["--dtype", "float32"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                assert server.poll() is None and time.monotonic() < end, "transformers serve does not start"
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()
