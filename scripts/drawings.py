"""Render the drawings of the data set: four freely licensed emoji sets from one npm package.

python -m scripts.drawings                   # downloads the package with `npm pack`
python -m scripts.drawings --source FOLDER   # an unpacked @iconify/json
"""

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from scripts import emoji

PACKAGE, VERSION = "@iconify/json", "2.2.535"
SHA256 = "1a545f86fa224d65"  # first digits of the tarball's sha256
SIDE = 256  # px of a stored drawing


def fetch(folder: Path) -> Path:
    """Download the icon sets with `npm pack`, check and unpack them; return the JSON files' folder."""
    target = folder / "package" / "json"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "pack", f"{PACKAGE}@{VERSION}"], cwd=folder, check=True)
    tarball = folder / f"iconify-json-{VERSION}.tgz"
    if not hashlib.sha256(tarball.read_bytes()).hexdigest().startswith(SHA256):
        raise ValueError(f"{tarball} is not the file this data set was made from; delete it and try again")
    with tarfile.open(tarball) as archive:
        wanted = [archive.getmember(f"package/json/{prefix}.json") for prefix in emoji.STYLES.values()]
        archive.extractall(folder, members=wanted, filter="data")
    return target


def render(icons: dict, name: str) -> Image.Image:
    """Render one icon of an Iconify set, cropped to its drawing, with premultiplied alpha ("RGBa")."""
    import resvg_py

    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    icon = icons["icons"][name]
    left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
    w, h = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {w} {h}" width="{w}" height="{h}">{icon["body"]}</svg>'
    )
    image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE)))).convert("RGBA")
    return image.crop(image.getchannel("A").getbbox()).convert("RGBa")


def load(folder: Path = Path("data"), source: Path | None = None) -> dict[str, Image.Image]:
    """Return all drawings by "style/concept"; render them into `folder`/drawings.npz if it is missing."""
    store = folder / "drawings.npz"
    if not store.exists():
        source = fetch(folder / "iconify") if source is None else source
        found = {}
        for style, prefix in emoji.STYLES.items():
            icons = json.loads(next(source.rglob(f"{prefix}.json")).read_text())
            found |= {f"{style}/{concept}": np.asarray(render(icons, concept)) for concept in emoji.CONCEPTS}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(store, **found)
    with np.load(store) as arrays:
        # frombytes, because Image.fromarray reads four channels as straight, not premultiplied, alpha
        return {k: Image.frombytes("RGBa", v.shape[1::-1], v.tobytes()) for k, v in arrays.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder that holds the Iconify JSON files")
    parser.add_argument("--folder", type=Path, default=Path("data"))
    args = parser.parse_args()
    print(f"{len(load(args.folder, args.source))} drawings in {args.folder / 'drawings.npz'}")
