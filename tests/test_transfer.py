"""`monge transfer` and the colours of pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from monge.cli import parse
from monge.maps import EntropicMap, ExactMap, LinearMap, SlicedMap, transfer_colours

METHODS = {
    "linear": lambda: LinearMap(0.01),
    "sliced": SlicedMap,
    "entropic": EntropicMap,
    "exact": ExactMap,
}


def picture(seed: int, mean: tuple[int, ...], size: tuple[int, int] = (40, 30)) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(mean, 15, (*size, len(mean)))
    return drawn.clip(0, 255).astype(np.uint8)


WARM, COLD = picture(0, (180, 100, 60)), picture(1, (50, 90, 160), (20, 50))


@pytest.fixture
def files(tmp_path):
    Image.fromarray(WARM).save(tmp_path / "warm.png")
    Image.fromarray(COLD).save(tmp_path / "cold.png")
    return tmp_path


def transfer(files, *argv: str, image="warm.png", like="cold.png", out="out.png") -> Image.Image:
    places = [str(files / name) for name in (image, like)]
    parse(["transfer", *places, "--out", str(files / out), *argv]).run()
    with Image.open(files / out) as shown:
        shown.load()
    return shown


@pytest.mark.parametrize("method", METHODS)
def test_the_colours_are_those_of_the_other_picture(method):
    moved = transfer_colours(WARM, COLD, METHODS[method]())
    assert moved.shape == WARM.shape
    assert moved.dtype == np.uint8
    close = 12 if method == "entropic" else 3
    for statistic in (np.mean, np.std):
        gap = statistic(moved, axis=(0, 1)) - statistic(COLD, axis=(0, 1))
        assert np.abs(gap).max() < close


@pytest.mark.parametrize("method", METHODS)
def test_the_command_writes_what_python_returns(method, files, capsys):
    shown = transfer(files, "--method", method, "--pixels", "300", "--seed", "3")
    made = METHODS[method](seed=3) if method == "sliced" else METHODS[method]()
    assert np.array_equal(shown, transfer_colours(WARM, COLD, made, sample=300, seed=3))
    assert capsys.readouterr().out.strip() == str(files / "out.png")


def test_every_seed_of_a_run_is_one_of_a_picture():
    for by in (None, SlicedMap(seed=-1)):
        moved = transfer_colours(WARM, COLD, by, sample=50, seed=-1)
        assert np.array_equal(moved, transfer_colours(WARM, COLD, by, sample=50, seed=-1))
    assert not np.array_equal(moved, transfer_colours(WARM, COLD, by, sample=50, seed=1))


def test_equal_pixels_stay_equal_and_blocks_do_not_show(monkeypatch):
    from monge.maps import colours

    whole = transfer_colours(WARM, COLD, ExactMap())
    monkeypatch.setattr(colours, "AT_ONCE", 100)
    assert np.array_equal(transfer_colours(WARM, COLD, ExactMap()), whole)
    twice = np.concatenate([WARM, WARM])
    moved = transfer_colours(twice, COLD, ExactMap(), sample=600)
    assert np.array_equal(moved[:40], moved[40:])


def test_a_picture_in_its_own_colours():
    assert np.abs(transfer_colours(WARM, WARM).astype(int) - WARM).max() <= 1


def test_grey_pictures():
    grey, others = picture(2, (80,))[..., 0], picture(3, (190,))[..., 0]
    moved = transfer_colours(grey, others, SlicedMap())
    assert moved.shape == grey.shape
    # the histogram is that of the other picture
    assert np.abs(np.sort(moved, None).astype(int) - np.sort(others, None)).mean() < 1
    assert transfer_colours(grey, COLD).shape == (40, 30, 3)
    assert transfer_colours(WARM, grey).shape == (40, 30, 3)


def test_one_colour():
    red = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    for method in METHODS.values():
        assert np.abs(transfer_colours(WARM, red, method()).astype(int) - red[0, 0]).max() <= 1
        moved = transfer_colours(red, COLD, method()).reshape(-1, 3)
        assert np.abs(moved[0] - COLD.mean((0, 1))).max() < 2


def test_transparency_is_kept_and_does_not_count(files):
    alpha = np.zeros((40, 30), np.uint8)
    alpha[:20] = 128
    alpha[0, 0] = 255
    seen = np.dstack([WARM, alpha])
    hidden = seen.copy()
    hidden[20:, :, :3] = 7  # the colours of transparent pixels
    Image.fromarray(seen).save(files / "seen.png")
    Image.fromarray(hidden).save(files / "hidden.png")
    one, two = (np.asarray(transfer(files, image=name)) for name in ("seen.png", "hidden.png"))
    assert np.array_equal(one[..., 3], alpha)
    assert np.array_equal(one[:20], two[:20])
    assert np.array_equal(two[20:, :, :3], hidden[20:, :, :3])
    like = np.asarray(transfer(files, image="cold.png", like="hidden.png"))
    assert np.abs(like.mean((0, 1)) - WARM[:20].mean((0, 1))).max() < 3


def test_palettes_and_orientation(files):
    Image.fromarray(WARM).quantize(16).save(files / "palette.png")
    shown = transfer(files, image="palette.png")
    assert shown.mode == "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(WARM).save(files / "turned.jpg", exif=exif, quality=100, subsampling=0)
    turned = transfer(files, image="turned.jpg", out="upright.png")
    assert turned.size == (40, 30)
    assert turned.getexif().get(0x0112, 1) == 1
    again = np.asarray(turned).astype(int)
    upright = np.rot90(transfer_colours(WARM, COLD), -1).astype(int)
    assert np.abs(again - upright).mean() < 6  # of a JPEG


def test_sixteen_bits_and_jpeg(files):
    deep = (picture(4, (90,))[..., 0].astype(np.uint16) * 257).astype(np.uint16)
    Image.fromarray(deep).save(files / "deep.png")
    grey = (deep // 257).astype(np.uint8)
    shown = transfer(files, image="deep.png", like="deep.png", out="out.jpg")
    assert shown.format == "JPEG"
    assert np.abs(np.asarray(shown).astype(int) - grey).mean() < 3


def test_what_pixels_do_not_tell_is_said(files):
    """Values that 8 bits cut off or make black, as the readers of data say, and further frames."""
    values = np.arange(64, dtype=np.int32).reshape(8, 8)
    Image.fromarray(values).save(files / "integers.tif")
    Image.fromarray((60 * values).astype(np.uint16)).save(files / "twelve.png")
    Image.fromarray(1000 * values + 5000).save(files / "beyond.tif")
    frames = [Image.fromarray(z).quantize(8) for z in (WARM, 255 - WARM)]
    frames[0].save(files / "two.gif", save_all=True, append_images=frames[1:])
    cases = {
        "integers.tif": "has values from 0 to 63, which are read as if .*at most 0 of 255",
        "twelve.png": "has values from 0 to 3,780, .*at most 14 of 255",
        "beyond.tif": "has values from 5,000 to 68,000, .*cut off",
        "two.gif": "holds several frames, of which the first is read",
    }
    for name, message in cases.items():
        with pytest.warns(UserWarning, match=f"`like` .*{name}' {message}"):
            transfer(files, like=name)
        with pytest.warns(UserWarning, match=f"`image` .*{name}' {message}"):
            transfer(files, image=name)


@pytest.mark.parametrize("out", ["out.png", "out.jpg"])
def test_the_profile_is_that_of_the_colours(files, out):
    """Numbers of one colour space are not to be shown as those of another one."""
    header = bytearray(128)
    header[16:20] = b"RGB "
    wide, other, grey = (bytes([k]) + bytes(header)[1:] for k in range(3))
    grey = grey[:16] + b"GRAY" + grey[20:]
    Image.fromarray(COLD).save(files / "wide.png", icc_profile=wide)
    Image.fromarray(WARM).save(files / "other.png", icc_profile=other)
    Image.fromarray(COLD[..., 0]).save(files / "grey.png", icc_profile=grey)
    assert transfer(files, like="wide.png", out=out).info["icc_profile"] == wide
    assert transfer(files, image="other.png", like="wide.png", out=out).info["icc_profile"] == wide
    assert transfer(files, image="grey.png", like="wide.png", out=out).info["icc_profile"] == wide
    assert transfer(files, image="grey.png", like="grey.png", out=out).info["icc_profile"] == grey
    for image, like in [("other.png", "cold.png"), ("other.png", "grey.png")]:
        assert "icc_profile" not in transfer(files, image=image, like=like, out=out).info


def test_bad_input_is_one_line(files):
    content = io.BytesIO()
    Image.fromarray(np.dstack([WARM, WARM[..., 0]])).save(content, "PNG")
    (files / "alpha.png").write_bytes(content.getvalue())
    (files / "cut.png").write_bytes(content.getvalue()[:500])
    (files / "text.png").write_text("no picture", encoding="utf-8")
    clear = np.zeros((4, 4, 4), np.uint8)
    Image.fromarray(clear).save(files / "clear.png")
    cases = [
        ({"out": "out.gif"}, r"`--out` must end in \.png, \.jpg, \.jpeg"),
        ({"out": "warm.png"}, r"is one of the pictures"),
        ({"image": "absent.png"}, r"`image` .*absent\.png' cannot be read: .*No such file"),
        ({"like": "text.png"}, r"`like` .* is in no format that is read"),
        ({"image": "cut.png"}, r"`image` .*cut\.png' cannot be read"),
        ({"image": "alpha.png", "out": "out.jpg"}, r"keeps no transparency"),
        ({"image": "clear.png"}, r"`image` .* is transparent in all"),
    ]
    for names, message in cases:
        with pytest.raises(ValueError, match=message):
            transfer(files, **names)
    with pytest.raises(ValueError, match=r"`--pixels` must be at least 1"):
        transfer(files, "--pixels", "0")
    assert not (files / "out.jpg").exists()


def test_bad_pictures_are_named():
    with pytest.raises(ValueError, match=r"`image` must be a uint8 array .* got float64"):
        transfer_colours(WARM / 255, COLD)
    with pytest.raises(ValueError, match=r"`like` must be a uint8 array .* shape \(20, 50, 2\)"):
        transfer_colours(WARM, COLD[..., :2])
    with pytest.raises(ValueError, match=r"`visible` must be a boolean array of shape \(40, 30\)"):
        transfer_colours(WARM, COLD, visible=np.ones((3, 3), bool))
    with pytest.raises(ValueError, match=r"`by` must be a TransportMap"):
        transfer_colours(WARM, COLD, "linear")


def test_a_tint_of_one_level_stays_a_tint():
    """A grey picture in which a sixth of the pixels is off by one level of red: its colours are
    moved as their greys are, whatever the other picture has."""
    random = np.random.default_rng(0)
    grey = np.repeat(random.integers(40, 200, (100, 100, 1), dtype=np.uint8), 3, 2)
    grey[:40, :40, 0] += 1
    like = random.integers(0, 255, (50, 50, 3), dtype=np.uint8)
    moved = transfer_colours(grey, like).astype(int)
    tinted, plain = np.ptp(moved[:40, :40], 2), np.ptp(moved[60:, 60:], 2)
    assert abs(tinted.mean() - plain.mean()) < 20


def test_opaque_transparency_is_none(tmp_path):
    opaque = np.full((8, 8, 2), 255, np.uint8)
    opaque[..., 0] = np.arange(8)
    Image.fromarray(opaque, "LA").save(tmp_path / "a.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).save(
        tmp_path / "b.png"
    )
    out = tmp_path / "out.jpg"
    parse(["transfer", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", str(out)]).run()
    with Image.open(out) as written:
        assert written.mode == "RGB"
