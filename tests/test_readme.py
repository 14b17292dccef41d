"""The README claims what the committed studies say."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_table_is_the_stored_studys():
    stored = (ROOT / "results/embedded/ras-lumina_tiny-ratio/table.md").read_text().splitlines()
    rows = [line for line in stored if line.startswith("|")]
    assert len(rows) > 8
    readme = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in readme if line in rows] == rows


def test_the_matrix_is_the_stored_studies():
    stored = (ROOT / "results/embedded/matrix/table.md").read_text().strip()
    assert stored.count("|") > 100
    assert stored in (ROOT / "README.md").read_text()


def test_every_picture_and_link_is_there():
    text = (ROOT / "README.md").read_text()
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert links
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert not missing
