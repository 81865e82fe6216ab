"""Uploads: the content type decides the decoder, and a process that may be killed decodes."""

import contextlib
import io
import os
import threading
import time

import numpy as np
import pytest
from explored import client_of, serving, small

from attacks import pictures
from monge._core import decoding
from monge.config import DataConfig
from monge.data.readers.images import decode
from monge.runs import Run
from monge.show.explore.server import opened
from monge.show.explore.uploads import UploadDecoder

HONEST, BOMBS, HEAVY = pictures.honest(), pictures.bombs(), pictures.heavy()


@pytest.fixture(scope="module")
def decoder():
    with contextlib.closing(UploadDecoder()) as decoder:
        yield decoder


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("channels", ["grey", "colour"])
def test_honest_images_are_read_as_training_images_are(decoder, name, channels):
    kind, content = HONEST[name]
    wanted = decode(content, DataConfig(size=16, channels=channels))
    assert np.array_equal(decoder.decode(content, kind, 16, channels), wanted)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(decoder, name):
    kind, content = BOMBS[name]
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"^`content` ") as refusal:
        decoder.decode(content, kind, 16, "grey")
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - began < decoding.SECONDS + 2


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_images_take_bounded_time(decoder, name):
    kind, content = HEAVY[name]
    began = time.monotonic()
    with contextlib.suppress(ValueError):
        decoder.decode(content, kind, 16, "grey")
    assert time.monotonic() - began < decoding.SECONDS + 2
    kind, content = HONEST["PNG"]
    assert decoder.decode(content, kind, 16, "grey").shape == (1, 16, 16)


def test_an_image_that_takes_too_long_is_stopped(decoder, monkeypatch):
    """And the next is read, by a process that takes the place of the one that was killed."""
    kind, content = HONEST["PNG"]
    decoder.decode(content, kind, 16, "grey")
    monkeypatch.setattr(decoding, "SECONDS", 0.2)
    kind, content = HEAVY["many scans"]
    with pytest.raises(ValueError, match=r"takes over 0\.2 s"):
        decoder.decode(content, kind, 16, "grey")
    monkeypatch.undo()
    kind, content = HONEST["PNG"]
    assert decoder.decode(content, kind, 16, "grey").shape == (1, 16, 16)


def test_others_are_served_meanwhile_and_the_process_ends(tmp_path):
    explorers = opened([Run(small("wae-mmd", "digits", tmp_path / "run", latent=3).path)])
    kind, content = HEAVY["many scans"]
    handles = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with serving(explorers) as place, client_of(place) as one, client_of(place) as other:
        path = "/api/runs/run/image"
        slow = threading.Thread(
            target=lambda: one.post(path, content=content, headers={"content-type": kind})
        )
        slow.start()
        time.sleep(0.3)
        body = {"codes": [[0.0, 0.0, 0.0]]}
        assert other.post("/api/runs/run/decode", json=body).status_code == 200
        assert slow.is_alive()
        slow.join()
    if handles:
        assert len(os.listdir("/proc/self/fd")) <= handles + 2


def test_a_job_ends_a_process_only_after_much_memory(monkeypatch):
    """The process goes on after an image that it refuses."""
    answers = io.BytesIO()
    job = b'{"name": "PNG", "size": 4, "channels": "grey", "length": 3}\nabc'
    decoding.serve(io.BytesIO(job * 3), answers)
    assert answers.getvalue().count(b"not in the format PNG") == (
        3 if decoding.most_memory() <= decoding.MOST_KEPT else 1
    )
