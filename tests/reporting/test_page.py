"""The report's page, as text and in a browser."""

import math
import re
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fluoroscope.reporting import page, tables, theme
from fluoroscope.reporting.collect import Collection, collect
from fluoroscope.reporting.columns import COLUMNS
from fluoroscope.reporting.comparison import compare
from fluoroscope.reporting.page import CSV, HTML, MARKDOWN, write
from fluoroscope.reporting.verdict import Verdict, verdict
from tests.support.chromium import measure, needs_chromium, photograph
from tests.support.pages import LAYOUT, named, number, parse, rows_of
from tests.support.studies import SETTINGS, write_study

# More than have a colour of their own, and one with an argument in its name.
ACTIVATIONS = ("relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "identity")


def made(comparison, folder):
    write(comparison, verdict(comparison), folder, lambda name: None)
    return folder


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    write_study(root, ACTIVATIONS, seeds=2, settings=SETTINGS[:2], gates=True)
    return compare(collect([root]))


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    return made(comparison, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def elements(folder):
    return parse((folder / HTML).read_text())


def test_the_page_asks_nobody_for_anything(folder, elements):
    text = re.sub(r"data:image/png;base64,[^\"]*", "data:", (folder / HTML).read_text())
    assert not re.search(r"https?:|//[a-z]|@import|srcset", text)
    assert not named(elements, "script", "link", "iframe", "img", "object", "form", "base")
    addresses = [a[k] for _, a, _ in elements for k in ("href", "xlink:href", "src") if k in a]
    assert {address[:5] for address in addresses if not address.startswith("#")} == {"data:"}
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", text))
    policy = next(a for a, _ in named(elements, "meta") if "http-equiv" in a)["content"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_what_is_referred_to_is_there_once(folder, elements):
    ids = [attrs["id"] for _, attrs, _ in elements if "id" in attrs]
    assert len(ids) == len(set(ids)) > 100
    text = (folder / HTML).read_text()
    refers = re.findall(r"(?:href=\"|url\()#([^\")]+)", text)
    for _, attrs, _ in elements:
        refers += attrs.get("aria-labelledby", "").split()
    assert set(refers) <= set(ids)


def test_headings_and_tables_tell_a_screen_reader_where_it_is(elements):
    levels = [int(tag[1]) for tag, _, _ in elements if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    html = next(attrs for attrs, _ in named(elements, "html"))
    assert html["lang"] == "en"
    # The head's, then one in every drawing.
    assert "ReLU" in named(elements, "title")[0][1]
    assert len(named(elements, "table")) == len(named(elements, "caption")) == 2 + 2 * 2
    assert {attrs.get("scope") for attrs, _ in named(elements, "th")} == {"row", "col"}
    regions = [a for _, a, _ in elements if "scroll" in a.get("class", "").split()]
    assert len(regions) == 6 + 2  # tables, and the figure of each setting
    for attrs in regions:
        assert attrs["tabindex"] == "0"
        assert "aria-label" in attrs or "aria-labelledby" in attrs


def test_every_drawing_says_in_numbers_what_it_shows(elements):
    drawings = [attrs for attrs, _ in named(elements, "svg")]
    texts = {attrs["id"]: text for _, attrs, text in elements if "id" in attrs}
    # Per setting: differences, dead units and scores, eight curves, and gates.
    assert len(drawings) == 2 * (1 + 1 + 8 + len(ACTIVATIONS))
    for attrs in drawings:
        assert attrs["role"] == "img"
        title, alt = (texts[i] for i in attrs["aria-labelledby"].split())
        assert title
        assert re.search(r"\d", alt)
    told = [text for name, text in texts.items() if name.endswith("difference-alt")]
    assert len(told) == 2
    assert all("identity" in text for text in told)


def test_a_drawing_has_no_colour_that_a_dark_page_cannot_change(elements, folder):
    text = (folder / HTML).read_text()
    used = set(re.findall(r"#[0-9a-f]{6}\b", text[text.index("<main") :]))
    assert not used & set(theme.LIGHT.values())
    variables = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert variables <= set(theme.LIGHT)
    assert set(theme.LIGHT) == set(theme.DARK)
    assert len(set(theme.LIGHT.values())) == len(theme.LIGHT)


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """WCAG 2.2, definition of contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colors", [theme.LIGHT, theme.DARK])
def test_colours_are_told_from_their_ground(colors):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for name in ("ink", "muted", "link"):
        assert contrast(colors[name], colors["ground"]) >= 4.5
        assert contrast(colors[name], colors["panel"]) >= 4.5
    for name in ("blue", "green", "purple", "brown", "dead"):  # labels of lines
        assert contrast(colors[name], colors["ground"]) >= 4.5
    assert contrast(colors["rest"], colors["ground"]) >= 3  # lines alone


SHOWN = {
    "AUROC": ("auroc", 5e-4),
    "SD": ("auroc_sd", 5e-4),
    "Minus relu": ("difference", 5e-4),
    "Dead": ("dead", 5e-4),
    "Linear": ("linear", 5e-4),
    "Blackout": ("blackout_max", 5e-4),
}


@pytest.mark.parametrize("setting", [1, 2])
def test_the_page_shows_the_numbers_of_the_comparison(comparison, elements, setting):
    rows = comparison.settings[setting - 1].rows
    shown = rows_of(elements, f"Scores and units, setting {setting}")
    assert list(shown["Activation"]) == list(rows["activation"])
    assert rows["activation"][0] == "relu"
    for title, (column, tolerance) in SHOWN.items():
        values = [number(cell) for cell in shown[title]]
        np.testing.assert_allclose(values, rows[column], atol=tolerance * 1.001, err_msg=title)
    low_high = [cell.replace("−", "-").split(" to ") for cell in shown["Difference, 95 %"][1:]]
    bounds = rows[["difference_low", "difference_high"]][1:]
    np.testing.assert_allclose(np.array(low_high, float), bounds, atol=5.01e-4)
    more = rows_of(elements, f"Patients, seeds, gates, gradients and time, setting {setting}")
    np.testing.assert_allclose(more["Time, s"].astype(float), rows["fit_s"], atol=0.51)
    np.testing.assert_allclose(
        more["Grad. head.dense"].astype(float), rows["grad_head_dense"], rtol=0.06
    )
    needed = [
        math.inf if cell == "no number" else int(cell.replace(",", ""))
        for cell in more["Patients for the margin"][1:]
    ]
    assert needed == list(rows["patients_for_margin"][1:])


def test_the_summary_has_a_pair_of_columns_a_setting(comparison, elements):
    caption = (
        "Difference of the AUROC to relu (* better or worse) and share of dead units, by setting"
    )
    shown = rows_of(elements, caption).set_index("Activation")
    assert set(shown.index) == set(ACTIVATIONS)
    for n, setting in enumerate(comparison.settings, 1):
        rows = setting.rows.set_index("activation").loc[shown.index]
        for title, column in ((f"{n}: minus relu", "difference"), (f"{n}: dead", "dead")):
            values = [number(cell) for cell in shown[title]]
            np.testing.assert_allclose(values, rows[column], atol=5.01e-4)


def test_a_finding_has_a_star(comparison):
    rows = comparison.settings[0].rows.assign(finding="undecided")
    rows.loc[2, "finding"] = "worse"
    changed = replace(comparison.settings[0], rows=rows)
    shown = tables.summary(replace(comparison, settings=[changed]))
    assert [row[1].endswith("*") for row in shown.rows] == [i == 2 for i in range(len(rows))]


def test_the_short_table_names_the_largest_gain_of_each_setting(comparison):
    hole = comparison.settings[1]
    rows = hole.rows[hole.rows["activation"] != "relu"].assign(difference=np.nan)
    settings = [comparison.settings[0], replace(hole, rows=rows.reset_index(drop=True))]
    first, second = tables.best(replace(comparison, settings=settings)).rows
    rows = settings[0].rows
    gainer = rows.loc[rows["difference"].idxmax()]
    assert first[0] == settings[0].label
    assert number(first[1]) == pytest.approx(rows["auroc"][0], abs=5.01e-4)
    assert (first[3], first[6]) == (gainer["activation"], COLUMNS["finding"].cell(gainer))
    assert number(first[4]) == pytest.approx(gainer["difference"], abs=5.01e-4)
    assert second[1:] == ["n/a"] * 6  # no reference there


def test_markdown_shows_the_same_cells_and_its_pictures_are_there(comparison, folder, elements):
    text = (folder / MARKDOWN).read_text()
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = rows_of(elements, "Scores and units, setting 2")
    assert all(list(row) in lines for _, row in cells.iterrows())
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == len(set(pictures)) == 2 * (1 + 1 + 8 + len(ACTIVATIONS))
    for picture in pictures:
        assert (folder / picture).read_bytes()[:4] == b"\x89PNG"
        assert (folder / picture).with_suffix(".svg").exists()
    assert verdict(comparison).headline in text.replace("**", "")


def test_the_table_file_holds_every_column_in_full(comparison, folder):
    table = pd.read_csv(folder / CSV)
    for n, setting in enumerate(comparison.settings, 1):
        rows = table[table["setting"] == n].reset_index(drop=True)
        for key, value in setting.setting.items():
            assert set(rows[key]) == {value}
        read = rows[list(setting.rows)]
        pd.testing.assert_frame_equal(read, setting.rows, check_dtype=False, rtol=1e-12)


def test_one_setting_has_no_summary(comparison, tmp_path):
    one = replace(comparison, settings=comparison.settings[:1], left_out=["a <b>& line"])
    folder = made(one, tmp_path)
    elements = parse((folder / HTML).read_text())
    assert not any("setting 1" in text for _, text in named(elements, "caption"))
    assert "a <b>& line" in [text for _, text in named(elements, "li")]
    first = next(text for _, text in named(elements, "figcaption"))
    assert first == "Difference to relu in test AUROC, and the units"


def test_a_test_split_without_a_score_is_reported_too(comparison, tmp_path):
    setting = comparison.settings[0]
    unknown = dict.fromkeys(("auroc", *(c for c in setting.rows if "difference_" in c)), np.nan)
    rows = setting.rows.assign(**unknown, difference=np.nan, finding="undecided")
    by_run = setting.by_run.assign(auroc=np.nan)
    bare = replace(setting, rows=rows, by_run=by_run)
    folder = made(replace(comparison, settings=[bare]), tmp_path)
    shown = rows_of(parse((folder / HTML).read_text()), "Scores and units")
    assert set(shown["AUROC"]) == set(shown["Minus relu"]) == {"n/a"}
    names = {path.stem for path in folder.glob("figures/*.png")}
    assert "curve-units-val-dead-frac" in names
    assert "dead-auroc" not in names
    assert "difference" in names  # with the units alone


def test_the_same_runs_give_the_same_bytes(comparison, folder, tmp_path):
    again = made(comparison, tmp_path)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    assert len(files) > 30
    for file in files:
        assert (folder / file).read_bytes() == (again / file).read_bytes(), file


def test_every_column_for_people_has_a_meaning(elements):
    terms = [text for _, text in named(elements, "dt")]
    titles = {text for attrs, text in named(elements, "th") if attrs["scope"] == "col"}
    assert titles - {t for t in titles if re.match(r"Evidence|\d: ", t)} <= set(terms)


def test_the_templates_are_part_of_the_package():
    assert {p.name for p in page.TEMPLATES.iterdir()} == {
        "head.html",
        "parts.html",
        "report.css",
        "report.html",
        "report.md",
    }
    assert page.TEMPLATES.is_relative_to(Path(page.__file__).parent)


@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_overflows_overlaps_or_is_too_small(folder, tmp_path, width):
    told = measure((folder / HTML).read_text(), LAYOUT, width, tmp_path)
    assert told == {"width": width, "outside": [], "over": [], "small": []}


EXTREME = ("relu", "identity", "=1+1 a$\\frac{$<b>|x`y", "_under", "活性化関数", "leaky_" * 40)


@pytest.mark.whole
@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_extreme_names_fit_too(tmp_path, width):
    """Names stay in their boxes, and one that is long does not widen the page."""
    write_study(tmp_path / "study", [f"a{n}" for n in range(len(EXTREME))], seeds=2)
    runs = collect([tmp_path / "study"]).runs
    for run in runs:
        run.config["head"]["activation"] = EXTREME[int(run.activation[1:])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compared = compare(Collection(runs, []))
        write(compared, Verdict(f"Better: {EXTREME[-1]}", [EXTREME[-1]], None), tmp_path, print)
    told = measure((tmp_path / HTML).read_text(), LAYOUT, width, tmp_path)
    assert told == {"width": width, "outside": [], "over": [], "small": []}


@needs_chromium
def test_light_and_dark_show_the_same_page_on_their_own_ground(folder, tmp_path):
    shown = {}
    for dark, colors in ((False, theme.LIGHT), (True, theme.DARK)):
        picture = photograph(folder / HTML, 1100, 3600, dark, tmp_path)
        pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
        ground = tuple(int(colors["ground"][i : i + 2], 16) for i in (1, 3, 5))
        shown[dark] = (pixels != ground).any(1)
        assert 0.02 < shown[dark].mean() < 0.6
        for name in ("ink", "blue", "dead"):
            color = tuple(int(colors[name][i : i + 2], 16) for i in (1, 3, 5))
            assert (pixels == color).all(1).sum() > 20, (dark, name)
    agree = (shown[False] == shown[True]).mean()
    assert agree > 0.99
