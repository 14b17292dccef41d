"""Folders of pictures as people have them, and files of every depth and colour model."""

import os

import numpy as np
import pytest
from PIL import Image, ImageCms

from fovea.eval import Unavailable
from fovea.eval.features import check
from fovea.eval.pictures import READ, folder, named, picture, read, readable
from fovea.eval.reference import Reference

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture
def place(tmp_path):
    for i in range(3):
        Image.fromarray(np.roll(COLOURS, i, 0)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_every_suffix_of_pytorch_fid_is_read(tmp_path):
    for suffix in READ:
        Image.fromarray(COLOURS).save(tmp_path / f"x{suffix.upper()}")
    assert {file.suffix.lower() for file in folder(tmp_path).pictures} == READ
    assert all(image.mode == "RGB" for image in read(folder(tmp_path).pictures))


@pytest.mark.parametrize("file", ["l.png", "l.tiff"])
@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_grey_of_any_depth_has_its_levels(tmp_path, file, mode):
    levels = RAMP if mode == "L" else RAMP.astype(np.uint16) * 257
    Image.fromarray(levels).save(tmp_path / file)
    assert np.array_equal(np.asarray(picture(tmp_path / file)), np.repeat(RAMP[..., None], 3, 2))


def test_palettes_and_opaque_alpha_have_their_colours(tmp_path):
    few = Image.fromarray(COLOURS // 128 * 255)
    few.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    few.convert("RGBA").save(tmp_path / "opaque.png")
    for file in tmp_path.iterdir():
        assert np.array_equal(np.asarray(picture(file)), np.asarray(few))
    Image.fromarray(RAMP).convert("LA").save(tmp_path / "la.png")
    assert np.array_equal(np.asarray(picture(tmp_path / "la.png"))[..., 1], RAMP)


def test_cmyk_is_read_as_pillow_converts_it(tmp_path):
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "x.tiff")
    assert np.array_equal(np.asarray(picture(tmp_path / "x.tiff")), COLOURS)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_colour_profile_is_ignored(tmp_path, mode):
    """As in pytorch-fid and clean-fid, which read with Pillow's convert("RGB") alone."""
    image = Image.fromarray(COLOURS).convert(mode)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    image.save(tmp_path / "x.tiff", icc_profile=profile)
    with Image.open(tmp_path / "x.tiff") as opened:
        assert opened.info["icc_profile"] == profile
        theirs = np.asarray(opened.convert("RGB"))
    assert np.array_equal(np.asarray(picture(tmp_path / "x.tiff")), theirs)


def test_a_turned_photograph_is_upright(tmp_path):
    turned, exif = Image.fromarray(COLOURS[:, :8]), Image.Exif()
    exif[0x0112] = 6  # its top is on the right
    turned.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(np.asarray(picture(tmp_path / "x.png")), np.rot90(COLOURS[:, :8], -1))


def _transparent(file):
    Image.fromarray(COLOURS).convert("RGBA").resize((16, 16)).save(file)
    image = Image.open(file).copy()
    image.putpixel((3, 3), (0, 0, 0, 0))
    image.save(file)


def _one_level_transparent(file):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(levels).save(file, transparency=257)


def _animated(file):
    frames = [Image.fromarray(np.roll(COLOURS, i, 0)) for i in range(3)]
    frames[0].save(file, save_all=True, append_images=frames[1:])


def _half(file):
    Image.fromarray(COLOURS).resize((64, 64)).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("clear.png", _transparent, "transparent in places"),
        ("deep.png", _one_level_transparent, "transparent in places"),
        ("moving.webp", _animated, "holds 3 pictures"),
        ("pages.tiff", _animated, "holds 3 pictures"),
        ("float.tiff", lambda file: Image.fromarray(RAMP.astype(np.float32)).save(file), "mode F"),
        ("deep.tiff", lambda file: Image.fromarray(RAMP.astype(np.int32)).save(file), "mode I"),
        ("half.jpg", _half, "truncated"),
        ("empty.png", lambda file: file.touch(), "it is no picture"),
        ("page.jpg", lambda file: file.write_text("<html>"), "it is no picture"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_named_before_any_work(place, name, make, says):
    make(place / name)
    with pytest.raises(Unavailable, match=says) as found:
        picture(place / name)
    assert name in found.value.reason
    with pytest.raises(Unavailable, match=says):
        Reference(place, cache=None).check(lambda: pytest.fail("the network is not needed to tell"))


def test_all_of_them_are_named(place):
    for name in ("a.png", "b.jpg", "c.bmp"):
        (place / name).touch()
    with pytest.raises(Unavailable, match=r"a\.png cannot be read .*2 more: .*b\.jpg and .*c\.bmp"):
        readable(folder(place).pictures)


def test_leftovers_of_other_systems_are_passed_over_in_silence(place):
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".thumbnails/9.png", "__MACOSX/1.png"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"not a picture")
    found = folder(place)
    assert ([file.name for file in found.pictures], found.note) == (["0.png", "1.png", "2.png"], "")


def test_what_is_passed_over_is_told(place):
    (place / "sub.png").mkdir()
    (place / "elsewhere").symlink_to(place)
    (place / "notes.txt").write_text("-")
    assert (
        folder(place).note
        == "of the reference, elsewhere and notes.txt that are no pictures were passed over"
    )
    assert Reference(place).note == folder(place).note
    assert len(folder(place).pictures) == 3


def test_a_pipe_called_as_a_picture_is_not_waited_for(place):
    os.mkfifo(place / "pipe.png")
    found = folder(place)
    assert [file.name for file in found.pictures] == ["0.png", "1.png", "2.png"]
    assert found.note == "of the reference, pipe.png that is no picture was passed over"


def test_a_dead_link_and_pictures_that_are_not_read_are_named(place):
    (place / "x.heic").touch()
    with pytest.raises(Unavailable, match=r"x\.heic: read are bmp, .* only"):
        folder(place)
    (place / "l.png").symlink_to("/nonexistent.png")
    with pytest.raises(Unavailable, match=r"l\.png: a link to nothing"):
        folder(place)


def test_statistics_of_other_programs_are_named_as_what_they_are(tmp_path):
    np.savez(tmp_path / "fid.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    (tmp_path / "text.npz").write_text("-")
    (tmp_path / "x.zip").touch()
    for name, says in (
        ("fid.npz", "mean and covariance as pytorch-fid"),
        ("other.npz", "an .npz of images"),
        ("text.npz", "cannot be read"),
        ("x.zip", "is a file"),
        ("nowhere", "no such folder"),
    ):
        with pytest.raises(Unavailable, match=says):
            Reference(tmp_path / name).check(lambda: None)


def test_files_are_looked_at_once_and_again_when_they_change(place, tmp_path, monkeypatch):
    files, cache = folder(place).pictures, tmp_path / "cache"
    check(files, cache)
    with monkeypatch.context() as patch:
        patch.setattr("fovea.eval.pictures.picture", lambda _: pytest.fail("read again"))
        check(files, cache)
    files[0].write_bytes(b"-")
    with pytest.raises(Unavailable, match=r"0\.png"):
        check(files, cache)


def test_damage_that_pillow_reports_in_odd_ways_is_named(place):
    Image.new("I;16", (16, 16)).save(place / "t.tif")
    data = (place / "t.tif").read_bytes()
    (place / "t.tif").write_bytes(data.replace(b"\x00\x01", b"\x00\x09"))  # no width
    with pytest.raises(Unavailable, match=r"t\.tif cannot be read"):
        readable(folder(place).pictures)


def test_a_folder_that_cannot_be_listed_is_named(place, monkeypatch):
    (place / "below").mkdir()
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(Unavailable, match=r"below cannot be listed \(Permission denied\)"):
        folder(place)


def test_names_in_a_sentence():
    assert [named("abcdefg"[:n]) for n in (0, 1, 2, 3, 4)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
        "a, b, c and 1 more",
    ]
