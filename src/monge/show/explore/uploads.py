"""Images that the page uploads, decoded in a process of their own (`monge._core.decoding`)."""

import json
import os
import subprocess
import sys
import threading
from typing import IO

import numpy as np

from monge._core import decoding

FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
}
"""What an upload may be, and the only decoder that sees it."""
START_SECONDS = 30.0


class UploadDecoder:
    """Decodes images one by one in a process, which starts with the first and is replaced when
    it has taken much memory or too much time."""

    def __init__(self):
        self._process: subprocess.Popen[bytes] | None = None
        self._one = threading.Lock()

    def decode(self, content: bytes, kind: str, size: int, channels: str) -> np.ndarray:
        """An image file as uint8 (c, size, size): upright, cropped and resized.

        Args:
            content: the file.
            kind: the content type as which it was sent, one of `FORMATS`.
            size: the side in pixels.
            channels: grey or colour.

        Raises:
            ValueError: if it is no image of this type, or takes too much time or memory.
        """
        job = {"name": FORMATS[kind], "size": size, "channels": channels}
        count = 1 if channels == "grey" else 3
        with self._one:
            made = self._asked(json.dumps(job | {"length": len(content)}).encode(), content)
        if len(made) != size * size * count:
            raise ValueError("`content` is not a readable image: its decoder failed")
        return np.moveaxis(np.frombuffer(made, np.uint8).reshape(size, size, count), -1, 0)

    def _asked(self, job: bytes, content: bytes) -> bytes:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        clock = threading.Timer(decoding.SECONDS, stop)
        clock.start()
        try:
            answer, made = _exchanged(process.stdin, process.stdout, job + b"\n", content)
        finally:
            clock.cancel()
            clock.join()
        if late.is_set() or answer.get("ends", True):
            self._end()
        if late.is_set():
            raise ValueError(f"`content` takes over {decoding.SECONDS} s to decode")
        if "error" in answer:
            raise ValueError(f"`content` is not a readable image: {answer['error']}")
        return made

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        # -P: a folder that a stranger may have filled is not on the path; what serves the page is
        path = os.pathsep.join(filter(None, sys.path))
        environment = {name: os.environ[name] for name in os.environ if name != "MONGE_TOKEN"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "monge._core.decoding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # ctrl-c is for the server, which then ends it
        )
        clock = threading.Timer(START_SECONDS, self._process.kill)
        clock.start()
        try:
            assert self._process.stdout is not None
            self._process.stdout.readline()
        finally:
            clock.cancel()
            clock.join()
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        """Ends the process, also while it decodes."""
        if self._process is not None:
            self._process.kill()
        with self._one:
            self._end()


def _exchanged(
    jobs: IO[bytes], answers: IO[bytes], job: bytes, content: bytes
) -> tuple[dict, bytes]:
    """A job's answer; empty if the process has ended."""
    try:
        jobs.write(job)
        jobs.write(content)
        jobs.flush()
        answer = json.loads(answers.readline() or "{}")
    except (BrokenPipeError, json.JSONDecodeError):
        return {}, b""
    return answer, answers.read(answer.get("length", 0))
