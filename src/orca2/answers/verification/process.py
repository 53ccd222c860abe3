"""A helper process that may hang or die on hostile text: asked one JSON line at a time, killed when it is late.

ask({"gold": ..., "value": ...}) ──▶ stdin   python -m <module>   stdout ──▶ {"equal": true}
                                    no line in time: killed, None; started anew for the next question
"""

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from orca2.errors import ConfigError

START_SECONDS = 300.0
"""Seconds; enough to import sympy on a loaded machine."""


class Worker:
    """Owns one process of `module`, started at first need and again after a kill. Safe to call from several threads.

    The module prints one line when it is ready, and one for each line that it reads.
    """

    def __init__(self, module: str, package: str, extra: str) -> None:
        """`package` is what the module imports, and `extra` what installs it."""
        self.kills = 0
        self._module, self._package, self._extra = module, package, extra
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any] | None:
        """The answer; None where none came within `timeout` seconds or the process died.

        Raises ConfigError where the extra is not installed or the process does not start.
        """
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                self.close()
                return None
            answer = _line(process, timeout)
            if answer is None:
                self.kills += 1
                self.close()
            return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[str]:
        if find_spec(self._package) is None:
            extra = self._extra
            raise ConfigError(f"checking these answers needs the extra `{extra}`; install orca2-lightning[{extra}]")
        # The child must find this package and no other thing: the parent's path is all it needs.
        env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        if _line(self._process, START_SECONDS) is None:
            self.close()
            raise ConfigError(f"the process that checks answers does not start; try `python -m {self._module}`")
        return self._process


def _line(process: subprocess.Popen[str], timeout: float) -> dict[str, Any] | None:
    """The next answer; None where none comes in time or the process is dead. One line per request, so no text waits
    in the buffer when `select` looks at the pipe."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline() if ready else ""
    answer: dict[str, Any] | None = json.loads(line) if line else None
    return answer
