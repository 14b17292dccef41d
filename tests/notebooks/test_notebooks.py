"""notebooks/: they run as they are, on the embedded models, and are committed as nobody has run them yet."""

import re

import nbformat
import pandas as pd
import pytest
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from scripts.notebooks import NOTEBOOKS, PAGES, ROOT, executed, page

FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
STORED = pd.read_parquet(ROOT / "results/embedded/ras-lumina_tiny-ratio/table.parquet").set_index("label")
QUARTER = STORED.loc["ras ratio=0.25"]
SHOWN = {
    "add_a_method": (
        *(" passed", "gain PSNR", "| dense |", "| checkerboard colours=2 |", "| checkerboard colours=4 |"),
        *("| 13 steps |", "| 10 steps |", "| 7 steps |"),
    ),
    "focus_maps": ("of 256 tokens ran 256 256 256 256 64", "tokens that RAS ran most", "the others"),
    "pareto": (
        *(f"{name} {QUARTER['clip_score[emoji]_to_dense']:+.3f}" for name in ("by hand", "stored ")),
        f"PSNR {QUARTER.psnr:.2f} dB, {QUARTER.psnr_gain:+.3f} dB over fewer steps at {QUARTER.speedup:.2f}×",
    ),
}
OF_OTHERS = "torch/utils/_pytree|torchao|kernels-community"  # what they say of each other when imported
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|mnt|opt|var)\b|[A-Z]:\\")


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def file(request):
    return request.param


@pytest.fixture(scope="module")
def ran(file):
    return executed(file)


def outputs(notebook):
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


def test_the_three_are_there():
    assert [file.stem for file in FILES] == ["add_a_method", "focus_maps", "pareto"]


def test_it_is_committed_without_output_and_for_any_python(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert not cell.metadata
        assert cell.get("execution_count") is None
        assert not cell.get("outputs")
        assert not ABSOLUTE.search(cell.source), cell.source


def test_its_page_has_the_code_and_words_of_the_notebook(file):
    """So that nobody copies from the page what the notebook no longer says."""
    shown = {line.rstrip() for line in (PAGES / f"{file.stem}.md").read_text("utf-8").splitlines()}
    cells = nbformat.read(file, as_version=4).cells
    said = [line.rstrip() for cell in cells for line in cell.source.splitlines()]
    assert not [line for line in said if line not in shown | {""}]


def test_every_cell_runs_and_nothing_is_complained_of(ran):
    written = "".join(out.text for out in outputs(ran) if out.get("name") == "stderr")
    assert [line for line in written.splitlines() if not re.search(OF_OTHERS, line)] == []
    assert sum("image/png" in out.get("data", {}) for out in outputs(ran)) >= 2


def test_what_it_leaves_behind_is_nothing(file, ran):
    assert not [*(ROOT / "conf").rglob("checkerboard*"), *(ROOT / "methods").glob("checkerboard*")]
    assert not [p for p in NOTEBOOKS.iterdir() if p not in FILES and p.name != ".ipynb_checkpoints"]
    assert nbformat.read(file, as_version=4).cells[0].cell_type == "markdown"


def test_it_shows_what_it_is_for(file, ran):
    found = [out.text if out.output_type == "stream" else out.get("data", {}) for out in outputs(ran)]
    shown = "\n".join(x if isinstance(x, str) else x.get("text/markdown", "") for x in found)
    assert [part for part in SHOWN[file.stem] if part not in shown] == []


def test_its_page_is_of_this_notebook(file):
    """The one in results/, which `python -m scripts.notebooks` writes."""
    text, source = (PAGES / f"{file.stem}.md").read_text(), nbformat.read(file, as_version=4)
    missing = [c.source for c in source.cells if " ".join(c.source.split()) not in " ".join(text.split())]
    assert not missing, "python -m scripts.notebooks"
    pictures = re.findall(r'<img src="(.*?)" width="\d+">', text)
    assert pictures
    assert {p.relative_to(PAGES).as_posix() for p in PAGES.glob(f"{file.stem}_files/*")} == {*pictures}
    assert not ABSOLUTE.search(text)


def test_the_pages_are_small():
    assert sum(p.stat().st_size for p in PAGES.rglob("*") if p.is_file()) < 1.5e6


def notebook(tmp_path, *cells):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(made, tmp_path / "own.ipynb")
    return tmp_path / "own.ipynb"


def test_a_cell_that_fails_is_told(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        executed(notebook(tmp_path, "1 + 1", "1 / 0"))


def test_a_cell_that_does_not_end_is_ended(tmp_path):
    with pytest.raises(CellTimeoutError):
        executed(notebook(tmp_path, "while True: pass"), seconds=2)


def test_a_page_has_pictures_beside_it_and_no_style_sheets(tmp_path):
    drawn = "import pandas as pd\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    text, pictures = page(executed(notebook(tmp_path, drawn, "pd.DataFrame({'a': [1]})")), "own")
    assert list(pictures) == ["own_files/own_0_0.png"]
    assert '<img src="own_files/own_0_0.png" width="' in text
    assert "<style" not in text
    assert "<td>1</td>" in text
