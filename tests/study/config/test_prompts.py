"""Prompts from files in exactly the layouts in which they are published."""

import hashlib
import json

import pytest

from fovea.study.config.errors import Refused
from fovea.study.config.prompt_files import captions
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
GENEVAL2 = (
    '{"prompt": "two red cups", "vqa_list": [["How many cups are there?", "two"]], "atom_count": 3}\n'
    '{"prompt": "a fox on a\u2028mat", "vqa_list": [["Is there a fox?", "Yes"]], "atom_count": 2}\n'
)
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
    (place / "geneval2_data.jsonl").write_text(GENEVAL2)
    assert texts("geneval2") == ["two red cups", "a fox on a\u2028mat"]
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
        found = [(row.id, row.text) for row in captions(coco(*shuffled))]
        assert found == [(f"{i}/{n}", f"caption {n}") for i, n in rounds]


def test_cocos_order_does_not_move():
    """Of five ids of 2014, as `printf %s ID | sha256sum` orders them."""
    rows = [(i, 1000 + i, f"of {i}") for i in (42, 73, 74, 133, 136)]
    assert [row.id for row in captions(coco(*rows))] == [
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
    "name", ["coco2014", "coco2017", "drawbench", "partiprompts", "geneval", "geneval2", "t2i_compbench"]
)
def test_a_missing_set_says_what_to_fetch_and_where_to_put_it(place, name):
    with pytest.raises(Refused) as refusal:
        read(name)
    for part in (f"prompts={name}: ", " not found: fetch from http", "into data/prompts/"):
        assert part in str(refusal.value)


def test_line_ends_are_of_three_systems_and_other_separators_are_characters(tmp_path):
    (tmp_path / "p.txt").write_bytes("a\u2028fox\r\nb\x85fox\rc\nd".encode())
    assert texts(tmp_path / "p.txt") == ["a\u2028fox", "b\x85fox", "c", "d"]
    records = [{"id": i, "prompt": f"a{mark}fox"} for i, mark in enumerate("\u2028\u2029\x85")]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (tmp_path / "p.JSONL").write_text("\n\n".join(lines), "utf-8")
    found = read(str(tmp_path / "p.JSONL")).all
    assert [(p.id, p.text) for p in found] == [(str(r["id"]), r["prompt"]) for r in records]


def test_quotes_after_a_blank_are_quotes(tmp_path):
    (tmp_path / "p.csv").write_text('id, prompt\n1, "a cat, a dog"\n2, a "red" fox\n3, "a cow"\n')
    assert texts(tmp_path / "p.csv") == ["a cat, a dog", 'a "red" fox', "a cow"]


def test_joined_files_have_no_mark_in_a_prompt(tmp_path):
    (tmp_path / "p.txt").write_text("\ufeffa fox\n\ufeff a cow\n\u200b\n", "utf-8")
    assert texts(tmp_path / "p.txt") == ["a fox", "a cow"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    (tmp_path / "p.txt").write_bytes("ein Füchslein 🦊\nx".encode(encoding))
    (tmp_path / "p.CSV").write_bytes("prompt,id\nein Füchslein 🦊,0\n".encode(encoding))
    assert texts(tmp_path / "p.txt") == ["ein Füchslein 🦊", "x"]
    assert [(p.id, p.text) for p in read(str(tmp_path / "p.CSV")).all] == [("0", "ein Füchslein 🦊")]


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_the_separator_is_the_one_that_gives_a_column_of_prompts(tmp_path, separator):
    rows = [["ID", " Prompt "], ["a", f"one, two{separator} three"], ["b", "four"]]
    text = "\n".join(separator.join(f'"{field}"' for field in row) for row in rows)
    (tmp_path / "p.csv").write_text(text)
    found = read(str(tmp_path / "p.csv")).all
    assert [(p.id, p.text) for p in found] == [("a", f"one, two{separator} three"), ("b", "four")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.csv", b"id,text\n1,a\n", "p.csv needs a column `prompt`; it has id, text"),
        ("p.csv", b"prompt\na cat, a dog\n", "line 2 has 2 fields, the header 1"),
        ("p.csv", b'id,prompt\n\n1,"two\nlines"\n2\n', "line 5 has 1 fields, the header 2"),
        ("p.tsv", b"prompt\tkind\na\n", "line 2 has 1 fields, the header 2"),
        ("p.csv", b'id,prompt\n1,"never closed\n', "line 2: unexpected end of data"),
        ("p.csv", b"prompt,Prompts\na,b\n", "line 1: one column `prompt`"),
        ("p.csv", b"id,prompt\n1,a\n2,b\n1,c\n", "line 4: the id 1 is already that of line 2"),
        ("p.txt", b"\n \n", "it contains no prompts"),
        ("p.csv", b"", "it contains no prompts"),
        ("p.txt", b"\xff\xfe\x00", "cannot be read as UTF-16 text: line 1"),
        ("p.txt", b"a\nb\xff", "cannot be read as UTF-8 text: line 2"),
        ("p.txt", "a\nb".encode("utf-16-le"), "line 1 holds a zero byte"),
        ("p.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n', "on each line; line 2 is not one"),
        ("p.jsonl", b'{"prompt": "a"}\n\n{"prompt": ["b"]}\n', "on each line; line 3 is not one"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": }\n', "line 2: Expecting value"),
        (
            "p.jsonl",
            b'{"prompt": "a"}\n{"prompt": "\\ud800"}',
            r"line 2: \\ud800 is half of a surrogate pair",
        ),
        ("p.jsonl", b'{"prompt": "a", "id": "\\udfff"}', r"line 1: \\udfff is half of a surrogate pair"),
        (
            "p.jsonl",
            b'{"prompt": "a", "id": [1]}',
            r"line 1: an id must be text or a whole number, not \[1\]",
        ),
        ("p.jsonl", b'{"prompt": "a", "prompt": "b"}', 'line 1: the key "prompt" is set twice'),
        ("p.jsonl", b'{"prompt": "a", "of": {"x": 1, "x": 1}}', 'line 1: the key "x" is set twice'),
        ("p.json", b'{"annotations": [], "annotations": []}', 'the key "annotations" is set twice'),
        ("p.jsonl", b'{"prompt": "a\\u0000b"}', r"line 1: \\u0000 is not allowed in a prompt"),
        ("p.jsonl", b"[" * 100_000, "line 1: nested too deeply"),
        ("p.json", b"[" * 100_000, "is not a COCO caption file: nested too deeply"),
        ("p.json", b'{"images": []}', "is not a COCO caption file"),
        ("p.json", b"{", "is not a COCO caption file"),
        (
            "p.json",
            coco((1, 1, "a"), (1, 2, None)).encode(),
            "annotation 2: its caption must be text, not null",
        ),
        ("p.json", coco((1, 1, ["a", "b"])).encode(), r'its caption must be text, not \["a", "b"\]'),
        ("p.json", coco((1, None, "a")).encode(), "annotation 1: its id must be a whole number, not null"),
        ("p.json", coco((True, 1, "a")).encode(), "its image_id must be a whole number, not true"),
        (
            "p.json",
            coco((1, 1, "a"), (1, 1, "b")).encode(),
            "annotation 2: the id 1/1 is already that of annotation 1",
        ),
        ("p.csv", b"prompt,id\na,1\n\xef\xbb\xbfPrompt,id\nb,2\n", "line 3 is the header again"),
        ("p.exe", b"a", "is a .exe; prompts are read from .txt"),
        ("p", b"a", "is a file without an ending; prompts are read from .txt"),
    ],
)
def test_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Refused, match=message):
        read(str(tmp_path / name))


def test_a_folder_is_named_as_one(tmp_path):
    with pytest.raises(Refused, match="is a folder; prompts are read from"):
        read(str(tmp_path))


def test_a_name_that_no_file_system_takes_is_no_file():
    with pytest.raises(Refused, match="neither a file"):
        read("x" * 5000 + ".txt")
