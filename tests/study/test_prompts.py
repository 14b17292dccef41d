import pytest

from study.prompts import read
from study.refused import Refused


def test_text_lines_without_empties_and_doubles(tmp_path):
    (tmp_path / "p.txt").write_text("\ufeffa fox\n\n  a fox  \nein Füchslein 🦊\n", "utf-8")
    assert [p.text for p in read(str(tmp_path / "p.txt")).all] == ["a fox", "ein Füchslein 🦊"]


def test_csv_with_quotes_and_line_breaks(tmp_path):
    (tmp_path / "p.csv").write_text('id,prompt,x\n../a,"one, ""two""\nthree",1\nb,four,2\n', "utf-8")
    found = read(str(tmp_path / "p.csv")).all
    assert [(p.id, p.text) for p in found] == [("../a", 'one, "two"\nthree'), ("b", "four")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.csv", b"id,text\n1,a\n", "needs a column `prompt`; it has id, text"),
        ("p.txt", b"\n \n", "there is no prompt in it"),
        ("p.txt", b"\xff\xfe\x00", "cannot be read as UTF-8"),
        ("p.exe", b"a", "no such file"),
    ],
)
def test_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Refused, match=message):
        read(str(tmp_path / name))
