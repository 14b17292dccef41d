"""report.html in a real browser: what is clicked, pressed and dragged, and what must never happen."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import run
from fovea.study.analysis.score import rows
from fovea.study.commands import rescore
from fovea.study.commands.merge_records import side_by_side
from fovea.study.picture import pixels
from fovea.study.records import FailureRecord
from fovea.study.report.maps import MARGIN, TILE
from fovea.study.report.page import page as write_page
from fovea.study.report.page_data import embedded
from fovea.study.report.page_facts import device
from fovea.study.report.study_table import study_table
from fovea.study.report.table import Column, Entry, Table
from fovea.study.store import Store
from tests.programs import needed
from tests.study.made_up import edit_records

ARGUMENTS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
HOSTILE = [
    "</script><img src=x onerror=alert(1)> \"double\" 'single' `tick` & <b>bold</b> \u2028 {{ 7 * 7 }}",
    "=HYPERLINK(A1;A2) a prompt of 10,000 characters " * 208 + "in the end",
    "שלום עולם 🦊 مرحبا ‮ reversed 👩‍👩‍👧",
]
POINTS = ".drawing:not([hidden]) .point"
LABEL = '<img src=x onerror=alert(2)> "ras" & co'


@pytest.fixture(scope="session")
def browser():
    program = needed("chromium", "chromium-browser", "google-chrome")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=ARGUMENTS.split())
        yield made
        made.close()


@pytest.fixture
def visit(browser):
    """Opens a study's report. At the end nothing may have been complained of, asked for or executed."""
    contexts, wrong = [], []

    def opened(study: Path, width=1280, height=900, before="", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url))
        if before:
            page.add_init_script(before)
        page.goto((study / "report.html").as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("#images-live:not([hidden])")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def changed(study: Path, place: Path, *arguments: str, **edits) -> Path:
    """A copy with its records edited, by what takes and gives each file's object, with a page of its own."""
    files = {"origin": "provenance.json", "cells": "cells/*/cell.json"}
    folder = shutil.copytree(study, place, dirs_exist_ok=True)
    for name, edit in edits.items():
        for file in folder.glob(files[name]):
            file.write_text(json.dumps(edit(json.loads(file.read_text("utf-8")))), "utf-8")
    write(folder, arguments)
    return folder


def write(folder: Path, arguments=(), published: Table | None = None) -> None:
    plan, stored = rescore.plan(folder, arguments)
    found = rows(plan, Store(folder))
    write_page(plan, Store(folder), found, study_table(found, plan.random_weights), stored, published)


@pytest.fixture(scope="session")
def hostile(finished, tmp_path_factory):
    """Prompts and labels that would like to be markup."""
    origin = json.loads((finished / "provenance.json").read_text("utf-8"))
    named = dict(zip(origin["samples"], HOSTILE, strict=True))

    def relabelled(found):
        for key, sample in found["samples"].items():
            sample["prompt"] = named[key]
        for cell in found["cells"].values():
            cell["label"] = LABEL if cell["label"] == "ras ratio=0.25" else cell["label"]
        return found

    def renamed(kind, record):
        for image in record["images"] if kind == "batch" else []:
            image["prompt"] = named[image["key"]]

    source = shutil.copytree(finished, tmp_path_factory.mktemp("hostile") / "source")
    edit_records(source, renamed)
    return changed(source, source.parent / "s", origin=relabelled)


def cell_of(study: Path, label: str) -> Path:
    origin = json.loads((study / "provenance.json").read_text("utf-8"))
    return study / "cells" / next(i for i, cell in origin["cells"].items() if cell["label"] == label)


@pytest.fixture(scope="session")
def failed(finished, tmp_path_factory):
    """A cell that lost an image to an error, and a metric that cannot be had."""
    source = shutil.copytree(finished, tmp_path_factory.mktemp("failing") / "s")
    cell = cell_of(source, "ras ratio=0.25")
    key = next(iter(json.loads((source / "provenance.json").read_text("utf-8"))["samples"]))
    Store(source).image(cell.name, key).unlink()
    failure = {"time": "2026-01-01T00:00:00", "type": "OutOfMemoryError", "message": "<b>full</b>"}
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nOutOfMemoryError'
    Store(source).append(FailureRecord(cell=cell.name, traceback=trace, **failure))
    return changed(source, source.parent / "failed", "metric=[psnr,ssim,fid]")


@pytest.fixture(scope="session")
def random(finished, tmp_path_factory):
    place = tmp_path_factory.mktemp("random") / "s"
    return changed(finished, place, origin=lambda found: found | {"random_weights": True})


@pytest.fixture(scope="session")
def old(finished, tmp_path_factory):
    """As studies were before there were traces, cold starts and the state of the machine."""
    source = shutil.copytree(finished, tmp_path_factory.mktemp("older") / "s")
    for folder in source.glob("cells/*/traces"):
        shutil.rmtree(folder)

    def bare(kind, found):
        return kind != "warm_up" and (found.update(state={}) if kind == "batch" else None)

    edit_records(source, bare)
    return changed(source, source.parent / "old")


@pytest.fixture(scope="session")
def crowded(finished, tmp_path_factory):
    """43 cells with long names, two of them of another baseline."""
    source = shutil.copytree(finished, tmp_path_factory.mktemp("crowd") / "s")
    template = cell_of(source, "3 steps")

    def twin(origin, name, of, **said):
        shutil.copytree(of, source.parent / "crowded" / "cells" / name)
        edit_records(source.parent / "crowded", lambda _, record: record.update(cell=name), name)
        origin["cells"][name] = origin["cells"][of.name] | said

    def multiplied(origin):
        twin(origin, "other0", cell_of(source, "dense"), label="other dense", dense="other0")
        twin(origin, "other1", cell_of(source, "ras ratio=0.5"), label="other ras", dense="other0")
        for i in range(37):
            label = f"a_method_with_a_long_name setting={i} another_setting=0.0133"
            said = {"label": label, "axes": {f"k{i}": i}, "role": "method", "series": "a_method"}
            twin(origin, f"{i:012x}", template, **said)
        return origin

    return changed(source, source.parent / "crowded", origin=multiplied)


@pytest.fixture(scope="session")
def published(finished, tmp_path_factory):
    """With a paper's results beside."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("published") / "s")
    columns = [Column("cell", "cell", left=True), Column("FID", "FID, published")]
    columns += [Column("measured", "measured", "interval", digits=((math.inf, 1),)), Column("by", "Δ")]
    row = {"cell": Entry("<b>RAS</b>", mark=" ‡"), "FID": Entry(18.1, text="18.1")}
    row |= {"measured": Entry(19.0, 18.5, 19.5), "by": Entry(0.9, text="+0.9 out")}
    write(folder, published=Table(columns, [row], ["Published: a paper <i>of others</i>."]))
    return folder


def labels(page) -> list[str]:
    return [text.strip() for text in page.locator("#figures tbody th").all_inner_texts()]


def heads(page):
    return page.locator("#figures thead tr").nth(1).locator("th")


def test_sorting_changes_the_order_and_says_so(finished, visit):
    page = visit(finished)
    planned = labels(page)
    assert planned == ["dense", "ras ratio=0.5", "ras ratio=0.25", "3 steps"]
    ssim = heads(page).filter(has_text="SSIM ↑")
    ssim.get_by_role("button").click()
    assert ssim.get_attribute("aria-sort") == "descending"
    numbers = [
        float(n)
        for n in page.locator("#figures tbody td:nth-child(6)").evaluate_all(
            "cells => cells.map((c) => c.dataset.number).filter(Boolean)"
        )
    ]
    assert numbers == sorted(numbers, reverse=True)
    assert labels(page)[-1] == "dense"  # it has no SSIM to itself: last, whichever way
    ssim.get_by_role("button").click()
    assert ssim.get_attribute("aria-sort") == "ascending"
    assert labels(page)[-1] == "dense"
    ssim.get_by_role("button").press("Enter")
    assert ssim.get_attribute("aria-sort") == "none"
    assert labels(page) == planned
    heads(page).nth(0).get_by_role("button").press("Space")
    assert labels(page) == ["3 steps", "dense", "ras ratio=0.25", "ras ratio=0.5"]
    assert heads(page).nth(0).get_attribute("aria-sort") == "ascending"


def test_a_point_says_what_it_is(finished, visit):
    page = visit(finished)
    title = page.locator(".card h3")
    place = page.locator(POINTS).last
    wanted = place.get_attribute("aria-label").split(":")[0]
    place.hover()
    assert title.inner_text() == wanted
    for name in page.locator(POINTS).evaluate_all("all => all.map((p) => p.dataset.cell)"):
        point = page.locator(f'{POINTS}[data-cell="{name}"]')
        point.focus()
        assert title.inner_text() == point.get_attribute("aria-label").split(":")[0]
        assert point.get_attribute("tabindex") == "0"
    card = page.locator(".card").inner_text()
    assert re.search(r"speedup\s+\d\.\d\d×", card)


def test_arrow_keys_go_from_point_to_point_by_cost(finished, visit):
    page = visit(finished)
    page.locator(f'{POINTS}[tabindex="0"]').focus()
    page.keyboard.press("Home")
    seen = [page.locator(".card h3").inner_text()]
    for _ in range(5):
        page.keyboard.press("ArrowRight")
        seen.append(page.locator(".card h3").inner_text())
    assert len(set(seen)) == page.locator(POINTS).count()
    costs = page.locator("#figures tbody tr").evaluate_all(
        "rows => rows.map((r) => [r.cells[0].innerText.trim(), +r.cells[2].dataset.number])"
    )
    order = [dict(costs)[name] for name in seen]
    assert order == sorted(order)
    page.keyboard.press("Enter")  # sets it on the right
    assert page.get_by_label("Right", exact=True).locator("option:checked").inner_text() == seen[-1]


def test_a_metric_and_a_cost_show_another_plot(finished, visit):
    page = visit(finished)
    shown = page.locator(".drawing:not([hidden])")
    assert "PSNR to dense" in shown.text_content()
    page.get_by_text("SSIM to dense", exact=True).first.click()
    assert "SSIM to dense" in shown.text_content()
    assert "(time)" in shown.text_content()
    page.locator("#plot .segments").get_by_text("FLOPs", exact=True).click()
    assert "(FLOPs)" in shown.text_content()
    assert shown.count() == 1


def test_the_slider_moves_the_divide(finished, visit):
    page = visit(finished)
    clip = page.locator(".over")
    assert "50%" in clip.evaluate("over => over.style.clipPath")
    page.get_by_label("Divide", exact=True).focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert "60%" in clip.evaluate("over => over.style.clipPath")
    assert page.get_by_label("Divide", exact=True).get_attribute("aria-valuetext") == "60 %"
    page.locator(".overlaid").scroll_into_view_if_needed()
    box = page.locator(".overlaid").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.2, box["y"] + 10)
    assert "20%" in clip.evaluate("over => over.style.clipPath")


def test_the_difference_is_that_of_the_two_images(finished, visit):
    page = visit(finished)
    page.get_by_text("Difference", exact=True).click()
    status = page.locator("#images [role=status]")
    status.filter(has_text="times 4").wait_for()
    origin = json.loads((finished / "provenance.json").read_text("utf-8"))
    key = next(iter(origin["samples"]))
    right = page.get_by_label("Right", exact=True).input_value()
    pair = [
        pixels(Store(finished).image(c, key)).astype(int) for c in (cell_of(finished, "dense").name, right)
    ]
    away = np.abs(pair[0] - pair[1])
    assert f"{away.mean():.2f} of 255 on average, {away.max()} at most" in status.inner_text()
    drawn = page.locator(".stage canvas").evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 < 3)"
    )
    assert np.array_equal(np.reshape(drawn, away.shape), np.minimum(4 * away, 255))
    page.get_by_label("Gain", exact=True).press("ArrowRight")
    status.filter(has_text="times 5").wait_for()
    page.get_by_label("Left", exact=True).select_option(right)
    status.filter(has_text="0.00 of 255 on average, 0 at most").wait_for()


@pytest.fixture(scope="session")
def mixed(small, tmp_path_factory):
    """A study of wide and square images."""
    results = tmp_path_factory.mktemp("mixed")
    points = "sweep.points=[{model.height: 64}, {model.height: 96}]"
    swept = [points, "sweep=none", "sweep.curve=null", "method.ratio=0.5", "n=1", "metric=[psnr]"]
    given = [text for text in small if not text.startswith(("sweep", "model.height", "metric", "n="))]
    assert run.main([*given, *swept, f"results={results}", "name=mixed"]) == 0
    return results / "mixed"


def the_image(study: Path, label: str) -> np.ndarray:
    key = next(iter(json.loads((study / "provenance.json").read_text("utf-8"))["samples"]))
    return pixels(Store(study).image(cell_of(study, label).name, key))


def test_images_of_another_shape_are_compared_and_mapped_in_their_own(mixed, visit):
    page = visit(mixed)
    status = page.locator("#images [role=status]")
    sides = {side: page.get_by_label(side, exact=True) for side in ("Left", "Right")}
    wide, square = sides["Right"].locator("option").all_inner_texts()[-2:]
    assert [the_image(mixed, label).shape for label in (wide, square)] == [(64, 96, 3), (96, 96, 3)]
    page.get_by_text("Difference", exact=True).click()
    sides["Right"].select_option(label=square)
    sides["Left"].select_option(label="dense height=96")
    away = np.abs(the_image(mixed, square).astype(int) - the_image(mixed, "dense height=96"))
    status.filter(has_text=f"{away.mean():.2f} of 255 on average, {away.max()} at most").wait_for()
    sides["Left"].select_option(label="dense height=64")
    status.filter(has_text="of different sizes").wait_for()
    assert page.locator(".stage figure").count() == 2
    assert page.locator(".stage canvas").count() == 0
    for label, tall in ((wide, 64), (square, 96)):
        page.locator("#maps").get_by_label("Cell", exact=True).select_option(label=label)
        every = "[...document.querySelectorAll('#maps .map canvas[role=img]')].every"
        page.wait_for_function(f"tall => {every}((c) => c.height * 96 === c.width * tall)", arg=tall)


def test_the_contact_sheet_keeps_the_shape_of_every_image(mixed):
    shown = np.asarray(Image.open(mixed / "grid.png").convert("RGB"))
    labels = [cell["label"] for cell in json.loads((mixed / "provenance.json").read_text())["cells"].values()]
    across = round((shown.shape[1] - MARGIN) / len(labels))
    for i, label in enumerate(labels):
        image = Image.fromarray(the_image(mixed, label))
        tall = round(TILE * image.height / image.width)
        expected = np.asarray(image.resize((TILE, tall), Image.Resampling.LANCZOS))
        column = shown[-TILE:, MARGIN + i * across : MARGIN + i * across + TILE]
        above = (TILE - tall) // 2
        assert np.array_equal(column[above : above + tall], expected), label
        assert (column[:above] == 255).all()


def canvas(page, nth=0) -> str:
    return page.locator("#maps .map canvas").nth(nth).evaluate("c => c.toDataURL()")


def test_the_step_slider_changes_the_map(finished, visit):
    page = visit(finished)
    page.wait_for_selector("#maps .steps button")
    assert page.locator("#maps .steps button").count() == 6
    step = page.get_by_label("Step", exact=True)
    assert step.get_attribute("aria-valuetext") == "3 of 6"  # the first with tokens left out
    before = canvas(page)
    step.press("Home")
    first = canvas(page)
    assert first != before
    assert "Step 1" in page.locator("#maps figcaption").first.inner_text()
    page.locator("#maps .steps button").nth(2).click()
    assert canvas(page) == before
    assert page.locator('#maps [aria-current="step"]').inner_text().startswith("3")
    page.get_by_role("button", name="Play").click()
    page.locator('#maps [aria-current="step"]').filter(has_text=re.compile("^6")).wait_for()
    page.get_by_role("button", name="Pause").click()
    total = canvas(page, 1)
    page.locator("#maps").get_by_text("Score", exact=True).click()
    page.locator("#maps .caption").filter(has_text="standard deviation").wait_for()
    assert canvas(page, 1) != total
    page.locator("#maps").get_by_label("Cell").select_option(label="dense")
    page.get_by_text("Distance to dense", exact=True).click()


def test_copying(finished, visit):
    command = json.loads((finished / "provenance.json").read_text("utf-8"))["command"]
    page = visit(finished, permissions=["clipboard-read", "clipboard-write"])
    page.locator(".command .copy").click()
    page.locator(".copied").filter(has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == command
    page.get_by_role("button", name="Copy all of it").click()
    page.wait_for_timeout(300)
    assert "\nCommit: " in page.evaluate("navigator.clipboard.readText()")


def test_copying_where_the_browser_refuses_the_clipboard(finished, visit):
    refused = "navigator.clipboard.writeText = () => Promise.reject(new Error('no'));"
    page = visit(finished, before=refused + "document.execCommand = () => false")
    page.locator(".command .copy").click()
    page.locator(".copied").filter(has_text="Selected").wait_for()
    assert page.evaluate("getSelection().toString()") == page.locator("#command").inner_text()


@pytest.mark.parametrize("name", ["finished", "hostile", "failed", "random", "crowded"])
def test_a_phone_shows_it_without_going_sideways(name, visit, request):
    page = visit(request.getfixturevalue(name), width=360, height=740)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#table .scroll").evaluate("box => box.scrollWidth > box.clientWidth")


def test_all_of_it_by_keyboard(finished, visit):
    page = visit(finished)
    page.wait_for_selector("#maps .steps button")
    seen = []
    look = """() => {
        const at = document.activeElement;
        const shown = [at, at.nextElementSibling, ...at.querySelectorAll("use")].filter(Boolean);
        const ring = (e) => getComputedStyle(e)[e.matches("use") ? "strokeWidth" : "outlineStyle"];
        const seen = (e) => !["none", "1px"].includes(ring(e));
        const name = at.matches("body") ? "body" : at.outerHTML.slice(0, 160);
        return [name, at.type || at.tagName, shown.some(seen)];
    }"""
    for _ in range(120):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(look))
        if seen[-1][0] == "body":
            break
    kinds = {kind for _, kind, _ in seen}
    assert {"radio", "range", "select-one", "button", "g", "A", "PRE", "DIV"} <= kinds
    assert [html for html, _, visible in seen if html != "body" and not visible] == []
    everything = "\n".join(html for html, _, _ in seen)
    for part in ("skip", "#provenance", "SSIM", 'class="point', "table.csv", "Play", "data-copy"):
        assert part in everything
    page.keyboard.press("Home")
    page.locator("nav a").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.url.endswith("#table")


def test_what_others_wrote_is_text(hostile, visit):
    page = visit(hostile)
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("b", has_text="bold").count() == 0
    assert LABEL in labels(page)
    for i, text in enumerate(HOSTILE):
        page.locator("#images select").first.select_option(index=i)
        assert page.locator(".prompt p").text_content() == text
    box = page.locator(".prompt").bounding_box()
    assert box["height"] < 200
    page.locator("#images select").first.select_option(index=1)
    assert page.locator(".prompt").bounding_box()["height"] < 200
    text = (hostile / "report.html").read_text("utf-8")
    assert "<img src=x" not in text
    assert text.count("</script>") == 2


def test_nothing_can_be_fetched_or_run_from_within(finished, browser):
    context = browser.new_context()
    page = context.new_page()
    page.goto((finished / "report.html").as_uri())
    ran = page.evaluate("""async () => {
        const blocked = [];
        const note = (event) => blocked.push(event.effectiveDirective);
        document.addEventListener("securitypolicyviolation", note);
        await fetch("http://127.0.0.1:9/x").catch(() => 0);
        const image = new Image();
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image);
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        await new Promise((done) => setTimeout(done, 300));
        return [blocked.sort(), window.ran];
    }""")
    context.close()
    assert ran == [["connect-src", "img-src", "script-src-elem"], None]


def test_random_weights_have_a_banner_and_no_quality(random, visit):
    page = visit(random)
    assert "RANDOM WEIGHTS" in page.locator(".banner").inner_text()
    assert "nothing is said of their quality" in page.locator("#verdict").inner_text()
    assert "No score has a number" in page.locator("#plot").inner_text()
    assert page.locator("#latency svg use").count() >= 4


def test_failures_are_told_and_unfold(failed, visit):
    page = visit(failed)
    row = page.locator("#figures tbody tr.failed")
    assert "ras ratio=0.25" in row.inner_text()
    verdict = page.locator("#verdict").inner_text()
    assert "1 of 4 cells failed: ras ratio=0.25" in verdict
    assert "fid[clean] is unavailable: no reference images are given" in verdict
    article = page.locator(".failure")
    assert "OutOfMemoryError: <b>full</b>" in article.inner_text()
    assert not article.locator("pre").is_visible()
    article.locator("summary").click()
    assert "in <module>" in article.locator("pre").inner_text()
    page.locator("#images").get_by_label("Right", exact=True).select_option(label="ras ratio=0.25")
    assert page.locator("#images .absent").count() >= 1
    assert "2 of 3 images of the cell are there" in article.inner_text()


def test_an_older_study_shows_what_it_has(old, visit):
    page = visit(old)
    page.wait_for_selector("#maps .steps button")
    assert page.locator("#maps .controls fieldset").count() == 0  # one kind of map only
    assert page.locator("#maps .steps button").count() == 6


def test_many_cells(crowded, visit):
    page = visit(crowded)
    assert page.locator("#figures tbody tr").count() == 43
    assert page.locator("#images .strip button").count() == 43
    assert "a_method_with_a_long_name setting=36" in page.locator("#latency svg").text_content()
    assert page.locator("#verdict .lead").first.inner_text().startswith("40 settings run at")
    left = page.get_by_label("Left", exact=True).locator("option:checked")
    assert left.inner_text() == "dense"
    page.get_by_label("Right", exact=True).select_option(label="other ras")
    assert left.inner_text() == "other dense"
    assert "PSNR to dense (dB), other" in page.locator(".drawing:not([hidden])").text_content()


def test_published_results_stand_apart(published, visit):
    page = visit(published)
    section = page.locator("#published")
    assert [text.split() for text in section.locator("tbody td").all_inner_texts()] == [
        ["<b>RAS</b>", "‡"],
        ["18.1"],
        ["19.0", "[18.5,", "19.5]"],
        ["+0.9", "out"],
    ]
    assert "a paper <i>of others</i>" in section.inner_text()
    for other in ("#table", "#plot", "#verdict"):
        assert "18.1" not in page.locator(other).inner_text()
    page.locator("nav").get_by_text("Published").click()
    assert page.url.endswith("#published")


def test_without_scripts_there_is_text_a_table_and_a_figure(finished, visit):
    page = visit(finished, java_script_enabled=False)
    assert page.locator("#figures").is_visible()
    assert page.locator(".lead").first.is_visible()
    assert page.locator(".drawing svg").first.bounding_box()["height"] > 100
    assert not page.locator(".copy").first.is_visible()
    assert not page.locator("#images, #maps").first.is_visible()


def test_printing_leaves_out_what_only_a_screen_can_do(finished, visit):
    page = visit(finished)
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator(".controls").first.is_visible()
    assert page.locator("#figures").is_visible()
    assert len(page.pdf()) > 20_000


def test_images_are_embedded_without_loss_while_small(finished, tmp_path):
    import base64
    import io

    from PIL import Image

    stored = next(finished.glob("cells/*/images/*/*.png"))
    with Image.open(io.BytesIO(base64.b64decode(embedded(stored).split(",")[1]))) as image:
        assert np.array_equal(np.asarray(image), pixels(stored))
    big = tmp_path / "big.png"
    Image.effect_noise((1024, 768), 40).save(big)
    with Image.open(io.BytesIO(base64.b64decode(embedded(big).split(",")[1]))) as image:
        assert image.size == (512, 384)


def test_it_is_one_file_and_says_where_it_is_from(finished):
    text = (finished / "report.html").read_text("utf-8")
    origin = json.loads((finished / "provenance.json").read_text("utf-8"))
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#|[a-z.]+["'])""", text)
    assert (origin["commit"] or "made outside a checkout") in text
    for link in re.findall(r'<a href="([^"#]+)"', text):
        assert (finished / link).is_file()


@pytest.mark.parametrize(
    ("machines", "threads", "says"),
    [
        ([{"cpu": "EPYC"}] * 2, [2, 2], "EPYC, 2 threads"),
        ([{"cpu": "EPYC"}] * 2, [1, 1], "EPYC, 1 thread"),
        ([{"cpu": "EPYC"}, {"cpu": "Xeon"}], [2, 4], "EPYC / Xeon, 2 / 4 threads"),
        ([{"gpu": "H100", "gpu_memory_bytes": 80 * 2**30}] * 2, [1, 1], "H100, 80 GiB"),
        ([{"gpu": "A100", "gpu_memory_bytes": 40 * 2**30}] * 2, [1, 2], "A100, 40 GiB"),
        ([{"gpu": f"{n} GB", "gpu_memory_bytes": n * 2**30} for n in (40, 80)], [1, 1], "40 GB / 80 GB"),
    ],
)
def test_the_devices_of_merged_studies_stand_side_by_side(machines, threads, says):
    assert device({"machine": side_by_side(machines), "threads": side_by_side(threads)}) == says
