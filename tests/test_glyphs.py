"""The data set `glyphs`: its drawings, its parts, its cache, and what it says of other fonts."""

import hashlib
import shutil

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

import monge
from monge._core.files import user_cache
from monge.config import DataConfig
from monge.data import load
from monge.data.readers import glyphs


@pytest.fixture(scope="module")
def source():
    return load(DataConfig("glyphs"))


def test_there_are_20_000_images_of_45_classes_in_equal_numbers(source):
    assert len(source.train) + len(source.test) == 20_000
    assert source.train.shape[1:] == (1, 28, 28)
    assert source.train.dtype == torch.uint8
    assert source.classes == tuple(sorted(glyphs.CLASSES))
    counts = torch.bincount(torch.cat([source.train_labels, source.test_labels]))
    assert 440 <= counts.min() <= counts.max() <= 450
    assert torch.bincount(source.test_labels).min() >= 20


def test_each_is_white_on_black_within_its_frame(source):
    x = source.train.float() / 255
    ink = x.sum((1, 2, 3))
    assert 15 < ink.min() <= ink.max() < 400
    assert (x.amax((1, 2, 3)) > 0.5).all()  # hairlines are narrower than a pixel
    edge = torch.cat([x[..., 0], x[..., -1], x[..., 0, :], x[..., -1, :]], -1)
    assert (edge.amax(-1) > 0).float().mean() < 1e-3
    assert edge.max() < 0.3
    place = torch.arange(28.0) - 13.5
    middle = (x.sum(2) * place).sum((1, 2)) / ink
    assert middle.abs().max() < 6


def test_no_test_image_is_nearer_to_training_than_training_images_are_to_each_other(source):
    x, y = source.train.flatten(1).float(), source.test.flatten(1).float()
    to_training = torch.cdist(y, x).amin(1)
    among = torch.cdist(x[:2000], x[2000:]).amin(1)
    assert to_training.min() > 255  # a whole pixel
    assert to_training.median() > 0.95 * among.median()


def test_a_drawing_is_that_of_freetype():
    fonts = matplotlib.get_data_path() + "/fonts/ttf/"
    unvaried = glyphs.Variation(0, 0, 1, 1, 0, 0, 0)
    outlines = glyphs._outlines(list(glyphs.FONTS))
    names = [(font, letter) for font in glyphs.FONTS for letter in glyphs.CLASSES]
    for (font, letter), outline in list(zip(names, outlines))[::41]:
        ours = glyphs._sample(glyphs._distance(outline), unvaried) / 255
        drawn = Image.new("L", (1200, 1200))
        face = ImageFont.truetype(fonts + font + ".ttf", 600)
        ImageDraw.Draw(drawn).text((300, 300), letter, 255, face)
        left, top, right, bottom = drawn.getbbox()
        side = max(right - left, bottom - top) * 28 / glyphs.BODY
        x, y = (left + right - side) / 2, (top + bottom - side) / 2
        box = (round(x), round(y), round(x + side), round(y + side))
        theirs = np.asarray(drawn.crop(box).resize((28, 28), Image.Resampling.BOX)) / 255
        assert abs(ours - theirs).mean() < 0.02, (font, letter)


def test_the_same_fonts_give_the_same_bits(monkeypatch):
    """Those that matplotlib 3.9, 3.10 and 3.11 give."""
    monkeypatch.setattr(glyphs, "COUNT", 900)
    images, labels = glyphs.drawn(list(glyphs.FONTS))
    assert np.bincount(labels).tolist() == [20] * 45
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "c3f7db53292633d4"


def test_they_are_kept_and_made_again_where_what_is_kept_is_damaged(source, monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "COUNT", 900)
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path))
    first = load(DataConfig("glyphs"))
    (file,) = (tmp_path / "glyphs").iterdir()
    whole = file.read_bytes()
    monkeypatch.setattr(glyphs, "drawn", None)  # is not called
    assert load(DataConfig("glyphs")).train.equal(first.train)
    monkeypatch.undo()
    monkeypatch.setattr(glyphs, "COUNT", 900)
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path))
    for damaged in (b"", whole[:1000], whole[:500] + b"?" + whole[501:]):
        file.write_bytes(damaged)
        assert load(DataConfig("glyphs")).train.equal(first.train)
        assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "COUNT", 900)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="drawn anew each time"):
        load(DataConfig("glyphs"))


def test_missing_fonts_are_named_and_none_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "COUNT", 900)
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    there = glyphs._folder()
    monkeypatch.setattr(glyphs, "_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="has none of them: install matplotlib"):
        load(DataConfig("glyphs"))
    for font in glyphs.FONTS[1:]:
        shutil.copy(there / f"{font}.ttf", tmp_path)
    with pytest.warns(UserWarning, match="lacks DejaVuSans, so samples are drawn from 19 fonts"):
        source = load(DataConfig("glyphs"))
    assert len(source.classes) == 45
    shutil.copy(there / "cmr10.ttf", tmp_path / "DejaVuSans.ttf")
    with pytest.warns(UserWarning, match="has other versions of its fonts"):
        load(DataConfig("glyphs"))


def test_classes_and_labels_are_those_of_any_data(source, tmp_path):
    assert load(DataConfig("glyphs", classes=("A", "a"))).classes == ("A", "a")
    config = monge.Config(
        condition="labels",
        data=DataConfig("glyphs", classes=("A", "g", "4")),
        training=monge.TrainingConfig(steps=2, batch=16),
    )
    run = monge.fit("wae-mmd", config=config, out=tmp_path / "run", quiet=True)
    assert run.model.sample(3, labels=torch.tensor([0, 1, 2])).shape == (3, 1, 28, 28)
    assert user_cache().exists()
    with pytest.raises(ValueError, match="`size` has no meaning"):
        load(DataConfig("glyphs", size=16))
