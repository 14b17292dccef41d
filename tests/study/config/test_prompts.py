"""Prompts from files in exactly the layouts in which they are published."""

import hashlib
import json

import pytest

from fovea.study.config.captions import captions
from fovea.study.config.errors import Refused
from fovea.study.config.prompts import read

COCO = (
    '{"info": {"description": "COCO 2014 Dataset","url": "http://cocodataset.org","year": 2014,'
    '"contributor": "COCO Consortium","date_created": "2017/09/01"},"images": [{"license": 3,"file_name": '
    '"COCO_val2014_000000391895.jpg","coco_url": "http://images.cocodataset.org/val2014/x.jpg","height": 360,'
    '"width": 640,"date_captured": "2013-11-14 11:18:45","flickr_url": "http://x.jpg","id": 391895}],'
    '"licenses": [{"url": "http://x/","id": 3,"name": "A License"}],"annotations": %s}'
)
PARTI = (
    "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tBiology-inspired concepts\n"
    'The words "Fly an airplane" on a wall.\tOutdoor Scenes\tComplex\t\n'
    '"unclosed\tAbstract\tBasic\t\nSalvador Dalí\tPeople\tBasic\t\n'
)
DRAW = 'Prompts,Category\r\nA red colored car.,Colors\r\n"A sign that says ""Hi"", blue.",Text\r\n'
GENEVAL = (
    '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}\n'
    '{"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", '
    '"count": 3}], "prompt": "a photo of two clocks"}\n'
)


def texts(source):
    return [p.text for p in read(str(source)).all]


def coco(*rows):
    """Annotations of (image, id, caption)."""
    return COCO % json.dumps([{"image_id": i, "id": n, "caption": c} for i, n, c in rows])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where published files are looked for, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "data" / "prompts"
    folder.mkdir(parents=True)
    return folder


def test_text_lines_without_empties_and_doubles(tmp_path):
    (tmp_path / "p.txt").write_text("\ufeffa fox\n\n  a fox  \nein Füchslein 🦊\n", "utf-8")
    assert texts(tmp_path / "p.txt") == ["a fox", "ein Füchslein 🦊"]


def test_csv_with_quotes_and_line_breaks(tmp_path):
    (tmp_path / "p.csv").write_text('id,prompt,x\n../a,"one, ""two""\nthree",1\nb,four,2\n', "utf-8")
    found = read(str(tmp_path / "p.csv")).all
    assert [(p.id, p.text) for p in found] == [("../a", 'one, "two"\nthree'), ("b", "four")]


def test_published_tables_and_records(place):
    (place / "PartiPrompts.tsv").write_text(PARTI, "utf-8")
    (place / "DrawBench Prompts - Sheet1.csv").write_text(DRAW, "utf-8", newline="")
    (place / "geneval" / "x").mkdir(parents=True)
    (place / "geneval" / "evaluation_metadata.jsonl").write_text(GENEVAL)
    assert texts("partiprompts") == [
        *("bond", 'The words "Fly an airplane" on a wall.', '"unclosed', "Salvador Dalí")
    ]
    assert texts("drawbench") == ["A red colored car.", 'A sign that says "Hi", blue.']
    assert texts("geneval") == ["a photo of a bench", "a photo of two clocks"]


def test_t2i_compbench_is_its_six_files_in_order(place):
    kinds = ["color", "shape", "texture", "spatial", "non_spatial", "complex"]
    for kind in reversed(kinds):
        (place / f"{kind}_val.txt").write_text(f"a {kind} thing\nanother {kind} thing")
    found = read("t2i_compbench")
    assert [p.id for p in found.all[:3]] == ["color_val/1", "color_val/2", "shape_val/1"]
    assert len(found.all) == 12
    assert list(found.files) == [f"{kind}_val.txt" for kind in kinds]


def test_cocos_order_is_the_rule_written_out(place):
    """Rounds of captions by id; within a round, images by the sha256 of their id."""
    rows = [(n % 7 + 1, n, f" caption  {n}\n") for n in range(100, 120)]
    order = sorted(range(1, 8), key=lambda image: hashlib.sha256(str(image).encode()).hexdigest())
    of_image = {image: sorted(n for i, n, _ in rows if i == image) for image in order}
    rounds = [(i, of_image[i][rank]) for rank in range(3) for i in order if rank < len(of_image[i])]
    for shuffled in (rows, rows[::-1]):
        assert captions(coco(*shuffled)) == [(f"{i}/{n}", f"caption {n}") for i, n in rounds]


def test_cocos_order_does_not_move():
    """Of five ids of 2014, as `printf %s ID | sha256sum` orders them."""
    rows = [(i, 1000 + i, f"of {i}") for i in (42, 73, 74, 133, 136)]
    assert [name for name, _ in captions(coco(*rows))] == [
        "136/1136",
        "42/1042",
        "73/1073",
        "133/1133",
        "74/1074",
    ]


@pytest.mark.parametrize("year", [2014, 2017])
def test_coco_is_found_as_unzipped(place, year):
    (place / "annotations").mkdir()
    file = place / "annotations" / f"captions_val{year}.json"
    file.write_text(coco((391895, 770337, "A man with a red helmet.\n"), (391895, 771687, "A man.")))
    assert texts(f"coco{year}") == ["A man with a red helmet.", "A man."] == texts(file)


def test_the_hubs_cache_will_do(place, tmp_path):
    repo = tmp_path / "hub" / "datasets--nateraw--parti-prompts"
    (repo / "snapshots" / "0" / "x").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0")
    (repo / "snapshots" / "0" / "PartiPrompts.tsv").write_text(PARTI, "utf-8")
    assert len(texts("partiprompts")) == 4


def test_the_hash_is_of_every_id_and_text_in_order(tmp_path):
    for name, data in (("a.txt", "x\ny"), ("b.txt", "x\n y \n\n"), ("c.txt", "y\nx"), ("d.txt", "x\nyy")):
        (tmp_path / name).write_text(data)
    a, b, c, d = (read(str(tmp_path / f"{name}.txt")).origin for name in "abcd")
    assert a["hash"] == b["hash"] == hashlib.sha256(b"1\tx\n2\ty").hexdigest()
    assert len({a["hash"], c["hash"], d["hash"]}) == 3
    assert a["files"] == {"a.txt": hashlib.sha256(b"x\ny").hexdigest()}
    assert (a["size"], a["source"]) == (2, str(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    "name", ["coco2014", "coco2017", "drawbench", "partiprompts", "geneval", "t2i_compbench"]
)
def test_a_missing_set_says_what_to_fetch_and_where_to_put_it(place, name):
    with pytest.raises(Refused) as refusal:
        read(name)
    for part in (f"prompts={name}: ", " not found: fetch from http", "into data/prompts/"):
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.csv", b"id,text\n1,a\n", "needs a column `prompt`; it has id, text"),
        ("p.txt", b"\n \n", "there is no prompt in it"),
        ("p.csv", b"", "there is no prompt in it"),
        ("p.txt", b"\xff\xfe\x00", "cannot be read as UTF-8"),
        ("p.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n', "on each line; line 2 is none"),
        ("p.json", b'{"images": []}', "is no COCO caption file"),
        ("p.json", b"{", "is no COCO caption file"),
        ("p.exe", b"a", "no such file"),
    ],
)
def test_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Refused, match=message):
        read(str(tmp_path / name))
