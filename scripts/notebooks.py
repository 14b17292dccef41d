"""The notebooks executed, and a page of each for readers on the web: Markdown, with its pictures beside it.

    python -m scripts.notebooks                 all of notebooks/, into results/embedded/notebooks/
    python -m scripts.notebooks pareto          this one

They run where they lie, with the Python that this is, and need no network. A cell that fails ends it, and
says why. The pictures are reduced to 256 colours, as all in results/ are.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from PIL import Image

from fovea.study.files import write

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, PAGES = ROOT / "notebooks", ROOT / "results" / "embedded" / "notebooks"
# no bars in what is kept, and no word on the widgets that would draw them
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
STYLE = re.compile(r"<style scoped>.*?</style>\n?", re.DOTALL)  # of pandas' tables: most sites print it


def executed(file: Path, seconds: int = 600) -> NotebookNode:
    """The notebook with its outputs; the file stays as it is. CellExecutionError, or CellTimeoutError for a
    cell that takes longer than so many seconds."""
    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(file.parent)}}
    quiet = ["--IPKernelApp.log_level=40"]  # it warns that it listens on this machine
    client = NotebookClient(
        notebook, timeout=seconds, kernel_name="python3", resources=place, extra_arguments=quiet
    )
    return client.execute(env=os.environ | QUIET)


def page(notebook: NotebookNode, name: str) -> tuple[str, Mapping[str, bytes]]:
    """Of an executed notebook: Markdown, and the pictures that it shows, NAME_files/... to PNG."""
    names = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, found = MarkdownExporter().from_notebook_node(notebook, resources=names)
    pictures = {path: reduced(data) for path, data in found["outputs"].items() if path.endswith(".png")}
    for path, data in pictures.items():
        text = text.replace(f"![png]({path})", f'<img src="{path}" width="{width(data)}">')
    text = "\n".join(line.rstrip() for line in STYLE.sub("", text).splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", pictures


def width(png: bytes) -> int:
    """On a page: the notebooks draw two pixels for each of the screen's."""
    return Image.open(BytesIO(png)).width // 2


def reduced(png: bytes) -> bytes:
    """In 256 colours: a third of the bytes."""
    small = BytesIO()
    image = Image.open(BytesIO(png)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def main(names: Sequence[str]) -> None:
    for file in [NOTEBOOKS / f"{name}.ipynb" for name in names] or sorted(NOTEBOOKS.glob("*.ipynb")):
        text, pictures = page(executed(file), file.stem)
        for old in (PAGES / f"{file.stem}_files").glob("*.png"):
            old.unlink()
        write(PAGES / f"{file.stem}.md", text)
        for path, data in pictures.items():
            write(PAGES / path, data)
        size = len(text) + sum(map(len, pictures.values()))
        print(f"{file.stem}.md with {len(pictures)} pictures, {size >> 10} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
