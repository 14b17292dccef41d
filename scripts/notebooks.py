"""Execute the notebooks and write each as a Markdown page with its pictures.

    python -m scripts.notebooks                 all of notebooks/, into results/embedded/notebooks/
    python -m scripts.notebooks pareto          only this one

Notebooks run in their own folder, with this Python and without network. A failing cell stops the script with
its error. Pictures are reduced to 256 colours, like all others in results/.
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
# no progress bars in the output, and no warning about the missing widgets
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
STYLE = re.compile(r"<style scoped>.*?</style>\n?", re.DOTALL)  # of pandas' tables; most sites show it


def executed(file: Path, seconds: int = 600) -> NotebookNode:
    """Execute a notebook and return it with its outputs; the file is unchanged. Raises CellExecutionError if
    a cell fails and CellTimeoutError if one takes longer than `seconds`."""
    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(file.parent)}}
    quiet = ["--IPKernelApp.log_level=40"]  # otherwise it warns that it listens on this machine
    client = NotebookClient(
        notebook, timeout=seconds, kernel_name="python3", resources=place, extra_arguments=quiet
    )
    return client.execute(env=os.environ | QUIET)


def page(notebook: NotebookNode, name: str) -> tuple[str, Mapping[str, bytes]]:
    """Convert an executed notebook to Markdown and its pictures, {NAME_files/...: PNG}."""
    names = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, found = MarkdownExporter().from_notebook_node(notebook, resources=names)
    pictures = {path: reduced(data) for path, data in found["outputs"].items() if path.endswith(".png")}
    for path, data in pictures.items():
        text = text.replace(f"![png]({path})", f'<img src="{path}" width="{width(data)}">')
    text = "\n".join(line.rstrip() for line in STYLE.sub("", text).splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", pictures


def width(png: bytes) -> int:
    """Return the width on a page, where two pixels of the notebook are one."""
    return Image.open(BytesIO(png)).width // 2


def reduced(png: bytes) -> bytes:
    """Reduce a PNG to 256 colours, a third of the bytes."""
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
