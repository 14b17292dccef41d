"""The wheel in a bare environment, used from a project that has folders of the same names as ours."""

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("conf", "eval", "methods", "models", "study")
OWN = ("fovea/__init__.py", "fovea/__main__.py", "fovea/lazy.py", "fovea/source.py")
USE = """
import eval, methods, models
from fovea import adapt, generate
from fovea.methods import RAS
assert models.OWN and eval.OWN and methods.OWN
print(generate.__module__, RAS.__module__)
"""


def tracked() -> set[str]:
    names = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(names.stdout.splitlines())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: building leaves folders where it is done."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files", "-z", "pyproject.toml", "README.md", "LICENSE", "fovea", *PACKAGES],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    copy = ["tar", "--null", "--files-from=-", "-cf", "-"]
    packed = subprocess.run(copy, cwd=ROOT, input=files.stdout, check=True, capture_output=True)
    (folder / "source").mkdir()
    subprocess.run(["tar", "-xf", "-"], cwd=folder / "source", input=packed.stdout, check=True)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=folder / "source", check=True, capture_output=True)
    return next(folder.glob("fovea-*.whl"))


@pytest.fixture(scope="module")
def project(wheel, tmp_path_factory) -> Path:
    """Its interpreter sees the wheel and what it depends on, and no checkout."""
    folder = tmp_path_factory.mktemp("project")
    venv.create(folder / "env", symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    zipfile.ZipFile(wheel).extractall(site)
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "shared.pth").write_text("\n".join(sorted(shared)))  # their own .pth files are not followed
    for name in ("models", "eval", "methods"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("OWN = True\n")
    (folder / "prompts.txt").write_text("a fox\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def python(project, *arguments):
    done = subprocess.run(
        [str(project / "env" / "bin" / "python"), *arguments], cwd=project, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_everything_is_in_the_wheel(wheel):
    """Code, configs, the page's parts; no link, no asset, no test."""
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == {f"fovea/{name}" for name in tracked()} | set(OWN)


def test_a_projects_own_folders_stay_its_own(project):
    assert python(project, "-c", USE) == (0, "fovea.models.sampling fovea.methods.ras\n", "")


def test_help_lists_what_the_wheel_holds(project):
    code, out, err = python(project, "-m", "fovea", "--help")
    assert (code, err) == (0, "")
    assert "ras" in out
    assert "name: null" in out


def test_what_a_checkout_has_beyond_it_is_named(project):
    """The default study is of an embedded model and its prompts."""
    code, _, err = python(project, "-m", "fovea", "plan=true")
    assert code == 2
    assert "prompts=emoji: prompts.csv not found: fetch from the repository itself" in err
    code, _, err = python(project, "-m", "fovea", "plan=true", "prompts=prompts.txt")
    assert code == 2
    assert "assets/lumina_tiny: it comes with a checkout of the repository, not with the package" in err


def test_a_study_is_planned_without_a_checkout(project):
    words = ["model=lumina", "model.weights=random", "sweep=none", "eval=none", "prompts=prompts.txt"]
    code, out, err = python(project, "-m", "fovea", "plan=true", *words)
    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["images_left"] == 6


def test_another_projects_commit_is_not_ours(project):
    """The environment lies in the project's own repository, as most do."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=b@c", "commit", "-q", "--allow-empty", "-m", "first"]
    subprocess.run(git, cwd=project, check=True)
    ask = "from fovea.study.run.provenance import git; print(git())"
    assert python(project, "-c", ask)[1] == "{'commit': None, 'dirty': None}\n"
