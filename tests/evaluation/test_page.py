"""The page of an evaluation, as text and in a browser."""

import re
import warnings
from itertools import pairwise

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fluoroscope.evaluation import page
from fluoroscope.evaluation.wording import estimate
from fluoroscope.reporting import theme
from tests.support.chromium import measure, needs_chromium, photograph
from tests.support.evaluations import make_content, make_predictions
from tests.support.pages import LAYOUT, named, parse, rows_of

LABELS = ["Pneumonia", "<script>alert(1)</script>", "Hernia"]
PATH = "Zwergl"


def groups(label, names=("F", "M")):
    known = {"value": 0.8, "low": 0.7, "high": 0.9}
    unknown = dict.fromkeys(known)
    rows = []
    for n, name in enumerate(names):
        few = name == "other"
        rows.append(
            {
                **{"attribute": "sex", "group": name, "label": label, "judged": not few},
                **{"why_not": "", "reference": names[0] if n else "", "labels": 1, "images": 60},
                **{"patients": 30, "positives": None if label is None else 21, "negatives": 39},
                **dict.fromkeys(("prevalence", "auroc", "sensitivity"), unknown if few else known),
                "specificity": unknown,
                "gaps": {"auroc": {"value": -0.1, "low": -0.2, "high": -0.03}} if n == 1 else {},
            }
        )
    return rows


def subgroups():
    rows = [row for label in (None, LABELS[0]) for row in groups(label, ("F", "M", "other"))]
    said = ["the AUROC of M is lower than that of F by 0.100 (0.030 to 0.200)"]
    return {"groups": rows, "point": "youden", "level": 0.95, "unknown": {}, "sentences": said}


@pytest.fixture(scope="module")
def predictions():
    return make_predictions(LABELS, 120, rare=("Hernia",))


@pytest.fixture(scope="module")
def content(predictions):
    note = "the patients of some images are unknown"
    parts = {"subgroups": subgroups(), "against": against(), "probes": probes()}
    return make_content(predictions, LABELS, 0.05, notes=[note], **parts)


def against():
    score = {"value": 0.8, "low": 0.7, "high": 0.9}
    gain = {"value": 0.03, "low": 0.01, "high": 0.05}
    pairs = [
        {"label": None, "finding": "better", "why_not": ""},
        {"label": LABELS[0], "finding": "undecided", "why_not": ""},
        {"label": "Hernia", "finding": "undecided", "why_not": "too few"},
    ]
    both = {"auroc": score, "other_auroc": score, "difference": gain}
    return {
        **{"fingerprint": "b" * 16, "images": 110, "patients": 55},
        **{"left_out": 10, "labels_not_compared": ["Edema"], "margin": 0.01},
        **{
            "pairs": [both | pair for pair in pairs],
            "sentences": ["it scores better than the other one"],
        },
    }


def probes():
    score = {"value": 0.8, "low": 0.7, "high": 0.9}
    lost = {"value": -0.2, "low": -0.3, "high": -0.1}
    words = f"{LABELS[0]}: the model loses 88 % of its score without the four corners"
    corner = {"auroc": score, "change": lost, "verdict": "called out", "words": words}
    shown = {"auroc": score, "change": lost, "verdict": "", "words": ""}
    of = {"corners_masked": corner, "lungs_only": shown}
    one = {"why_not": "", "auroc": score, "probes": of, "views": {"AP": score}}
    none = {"why_not": "too few", "auroc": dict.fromkeys(score), "probes": {}, "views": {}}
    return {
        **{"summary": "1 of 2 labels is called out", "called_out": [words], "lungs": "ellipse"},
        **{"lungs_words": "Lungs: an ellipse.", "labels": {LABELS[0]: one, "Hernia": none}},
    }


@pytest.fixture(scope="module")
def text(content, predictions, tmp_path_factory):
    return page.write(content, predictions, tmp_path_factory.mktemp("page")).read_text()


@pytest.fixture(scope="module")
def elements(text):
    return parse(text)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The page of one label without calibration, subgroups and prevalence."""
    table = make_predictions(["Pneumonia"])
    made = make_content(table, ["Pneumonia"], points=(), calibrated="")
    made["labels"]["Pneumonia"] |= {"after": None, "calibration": None, "decision_curve": []}
    return page.write(made, table, tmp_path_factory.mktemp("single")).read_text()


def test_the_page_asks_nobody_for_anything(text, elements):
    assert not re.search(r"https?:|//[a-z]|@import|srcset", text)
    assert not named(elements, "script", "link", "iframe", "img", "object", "form", "base")
    policy = next(a for a, _ in named(elements, "meta") if "http-equiv" in a)["content"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.mark.parametrize("which", ["text", "single"])
def test_ids_are_unique_and_referred_ones_exist(which, request):
    text = request.getfixturevalue(which)
    elements = parse(text)
    ids = [attrs["id"] for _, attrs, _ in elements if "id" in attrs]
    assert len(ids) == len(set(ids)) > 20
    refers = re.findall(r"(?:href=\"|url\()#([^\")]+)", text)
    for _, attrs, _ in elements:
        refers += attrs.get("aria-labelledby", "").split()
    assert set(refers) <= set(ids)


@pytest.mark.parametrize("which", ["text", "single"])
def test_a_screen_reader_finds_headings_tables_and_figures(which, request):
    elements = parse(request.getfixturevalue(which))
    levels = [int(tag[1]) for tag, _, _ in elements if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(named(elements, "table")) == len(named(elements, "caption"))
    assert {attrs.get("scope") for attrs, _ in named(elements, "th")} == {"row", "col"}
    for attrs in [a for _, a, _ in elements if "scroll" in a.get("class", "").split()]:
        assert attrs["tabindex"] == "0"
        assert "aria-label" in attrs or "aria-labelledby" in attrs
    texts = {attrs["id"]: text for _, attrs, text in elements if "id" in attrs}
    drawings = named(elements, "svg")
    assert drawings
    for attrs, _ in drawings:
        title, alt = (texts[i] for i in attrs["aria-labelledby"].split())
        assert title
        assert re.search(r"\d\.\d", alt)


def test_each_judged_label_has_its_five_figures(elements, single):
    titles = [text for _, text in named(elements, "figcaption")]
    kinds = ["ROC curve", "Precision and recall", "Reliability", "Probabilities"]
    kinds.append("Decision curve at prevalence 0.05")
    for kind in kinds:
        assert [t for t in titles if t.startswith(kind)] == [f"{kind}, {n}" for n in LABELS[:2]]
    assert {"AUROC of each label", "AUROC of groups, mean over labels"} <= set(titles)
    of_single = [text for _, text in named(parse(single), "figcaption")]
    assert of_single == [f"{kind}, Pneumonia" for kind in kinds[:4]]


def test_the_first_lines_say_what_was_evaluated_and_what_was_not(content, elements, text):
    headline = next(text for attrs, text in named(elements, "p") if attrs["class"] == "headline")
    auroc = estimate(content["macro"]["auroc"])
    assert headline.startswith(f"AUROC {auroc}, mean of 2 labels on 120 x-rays of 60 patients")
    listed = [text for _, text in named(elements, "li")]
    assert "The patients of some images are unknown." in listed
    assert "Hernia: not judged: 6 positive images; 10 are needed." in listed
    assert content["fingerprint"] in text


def test_the_tables_show_the_numbers_of_the_evaluation(content, elements):
    caption = "Scores of each label; in brackets the 95 % interval over patients"
    shown = rows_of(elements, caption).set_index("Label")
    assert list(shown.index) == ["mean of 2", *LABELS]
    for name in LABELS[:2]:
        for key, title in (("auroc", "AUROC"), ("ece", "ECE"), ("log_loss", "Log loss")):
            assert shown.loc[name, title] == estimate(content["labels"][name][key])
    assert shown.loc["Hernia", "AUROC"] == "not judged"
    assert shown.loc["Hernia", "Positive images"] == "6 of 120 (5.0 %)"
    name = LABELS[0]
    caption = f"Decisions at operating points that were fixed on validation, {name}"
    shown = rows_of(elements, caption).set_index("")
    point = content["labels"][name]["points"]["sensitivity_90"]
    column = shown["sensitivity ≥ 0.90"]
    assert float(column["Threshold"]) == point["threshold"]
    assert column["Sensitivity"] == estimate(point["sensitivity"])
    assert column["True positives"] == estimate(point["tp"], ".0f")
    assert column["LR+"].endswith("∞)")
    assert column["PPV at prevalence 0.05"] == estimate(point["at_prevalence"]["ppv"])


def test_groups_are_shown_with_their_gaps(elements):
    caption = "Groups of images, mean over labels; gap: difference to the compared group"
    shown = rows_of(elements, caption).set_index("Group")
    assert list(shown.index) == ["sex: F", "sex: M", "sex: other"]
    assert shown.loc["sex: M", "AUROC, gap"] == "−0.100 (−0.200 to −0.030)"
    assert shown.loc["sex: other", "AUROC"] == "too few"
    assert "Specificity" not in shown
    said = "The AUROC of M is lower than that of F by 0.100 (0.030 to 0.200)."
    assert said in [text for _, text in named(elements, "li")]


def test_another_model_and_the_probes_are_shown(elements, text):
    caption = f"AUROC of this model and of the model with the weights {'b' * 16}"
    shown = rows_of(elements, caption).set_index("Label")
    assert list(shown["Finding"]) == ["better", "not decided", "–"]
    assert list(shown["Difference"]) == ["+0.030 (+0.010 to +0.050)"] * 2 + ["–"]
    assert "It scores better than the other one." in text
    shown = rows_of(elements, f"AUROC on changed images, {LABELS[0]}").set_index("Images")
    assert list(shown.index) == ["unchanged", "corners masked", "lungs only", "view AP"]
    assert shown.loc["corners masked", "Change"] == "−0.200 (−0.300 to −0.100)"
    assert list(shown["Verdict"]) == ["–", "called out", "–", "–"]
    listed = [text for _, text in named(elements, "li")]
    assert probes()["called_out"][0] + "." in listed
    assert not any("Hernia" in text and "changed" in text for _, text in named(elements, "caption"))


def test_an_ensemble_names_its_models_by_their_weights(predictions, content, tmp_path):
    models = {
        **{"fingerprints": ["a" * 16, "b" * 16], "auroc": [0.81, 0.79]},
        **{"left_out": 3, "thresholds": "chosen together"},
    }
    text = page.write(content | {"ensemble": models}, predictions, tmp_path).read_text()
    shown = rows_of(parse(text), "Each model alone on the same images (mean over labels)")
    assert list(shown["AUROC alone"]) == ["0.810", "0.790"]
    assert "Left out, seen in a training: 3 images." in text


def test_another_collection_shows_prevalence_and_recalibration(predictions, content, tmp_path):
    here = {"value": 0.1, "low": 0.05, "high": 0.2}
    quality = content["labels"][LABELS[0]]["before"]
    fitted = {"why_not": "", "images": 40, "positives": 12, "before": quality, "after": quality}
    few = fitted | {"why_not": "too few", "before": None, "after": None}
    shift = {
        **{"source": "nih14", "names": {"Hernia": "hiatal hernia"}, "sentences": ["it is rarer"]},
        "prevalence": {"Hernia": {"validation": 0.4, "here": here}},
        "recalibration": {
            **{"share": 0.2, "images": 40, "patients": 20},
            "labels": {LABELS[0]: fitted, "Hernia": few},
        },
    }
    text = page.write(content | {"collection": shift}, predictions, tmp_path).read_text()
    elements = parse(text)
    shown = rows_of(elements, "Share of positive images here and in the model's validation")
    assert shown.iloc[0].tolist() == ["Hernia", "hiatal hernia", "0.400", "0.100 (0.050 to 0.200)"]
    caption = "Quality of the probabilities before and after recalibration on this collection"
    shown = rows_of(elements, caption).set_index("Label")
    assert shown.loc[LABELS[0], "ECE, after"] == estimate(quality["ece"])
    assert shown.loc["Hernia", "Fitted on"] == "too few images"
    assert "It is rarer." in [text for _, text in named(elements, "li")]


def test_probabilities_are_calibrated_as_the_evaluation_says(predictions, content):
    name = LABELS[0]
    labels = content["labels"] | {name: content["labels"][name] | {"calibration": None}}
    labels["Hernia"] = labels["Hernia"] | {"calibration": {"temperature": {"value": 2.0}}}
    judged = page.judged_probabilities(content | {"labels": labels}, predictions)
    raw = predictions["Hernia_probability"]
    odds = (raw / (1 - raw)) ** 0.5
    np.testing.assert_allclose(judged["Hernia_probability"], odds / (1 + odds))
    pd.testing.assert_series_equal(
        judged[f"{name}_probability"], predictions[f"{name}_probability"]
    )


def test_colours_are_those_of_the_scheme(text):
    used = set(re.findall(r"#[0-9a-f]{6}\b", text[text.index("<main") :]))
    assert not used & set(theme.LIGHT.values())
    assert set(re.findall(r"var\(--([\w-]+)\)", text)) <= set(theme.LIGHT)


def test_images_are_shown_only_if_they_may_be_named(tmp_path):
    predictions = make_predictions(["Mass"])
    content = make_content(predictions, ["Mass"])
    film = np.random.default_rng(0).integers(0, 255, (300, 260)).astype(np.uint8)
    paths = [str(tmp_path / f"{PATH}-{n}.png") for n in range(len(predictions))]
    for path in paths[:-1]:
        cv2.imwrite(path, film)
    named_table = predictions.assign(path=paths, patient=PATH)
    assert PATH not in page.write(content, named_table, tmp_path).read_text()
    elements = parse(page.write(content, named_table, tmp_path, named=True).read_text())
    images = named(elements, "img")
    assert 9 <= len(images) <= 10
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs, _ in images)
    assert all(re.match(r"x-ray of row \d+; ", attrs["alt"]) for attrs, _ in images)
    rows = rows_of(elements, "The worst errors; row: the image in predictions/test.csv")
    place = predictions.set_index("row").index.get_loc(int(rows["Row"][0]))
    captions = [text for _, text in named(elements, "figcaption") if text.startswith("Row ")]
    assert len(captions) == 10
    assert captions[0].endswith(paths[place])


def test_without_a_judged_label_the_page_says_so(tmp_path):
    table = make_predictions(["Hernia"], 60, rare=("Hernia",))
    elements = parse(page.write(make_content(table, ["Hernia"]), table, tmp_path).read_text())
    headline = next(text for attrs, text in named(elements, "p") if attrs["class"] == "headline")
    assert headline == "No label can be judged on 60 x-rays of 30 patients."
    assert not named(elements, "svg")


@pytest.mark.parametrize(
    ("known", "told"), [("none", "of unknown patients"), ("some", "of at most 60 patients")]
)
def test_unknown_patients_are_not_counted(content, known, told):
    changed = content | {"patients_known": known, "patients": None if known == "none" else 60}
    assert told in page.headline(changed)[1]


def test_the_same_evaluation_gives_the_same_bytes(content, predictions, text, tmp_path):
    assert page.write(content, predictions, tmp_path).read_text() == text


@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_overflows_overlaps_or_is_too_small(text, tmp_path, width):
    opened = text.replace("<details", "<details open")
    told = measure(opened, LAYOUT, width, tmp_path)
    assert told == {"width": width, "outside": [], "over": [], "small": []}


@pytest.mark.whole
@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_extreme_names_fit_too(tmp_path, width):
    labels = ["=1+1 a$\\frac{$<b>|x`y", "_under", "活性化関数", "leaky_" * 40]
    table = make_predictions(labels, 80)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = make_content(table, labels, subgroups={**subgroups(), "groups": groups(None)})
        text = page.write(made, table, tmp_path).read_text().replace("<details", "<details open")
    told = measure(text, LAYOUT, width, tmp_path)
    assert told == {"width": width, "outside": [], "over": [], "small": []}


@pytest.mark.whole
@needs_chromium
def test_light_and_dark_show_the_same_page(content, predictions, tmp_path):
    file = page.write(content, predictions, tmp_path)
    shown = {}
    for dark, colors in ((False, theme.LIGHT), (True, theme.DARK)):
        picture = photograph(file, 1100, 2600, dark, tmp_path)
        pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
        ground = [int(colors["ground"][i : i + 2], 16) for i in (1, 3, 5)]
        shown[dark] = (pixels != ground).any(1)
        assert 0.02 < shown[dark].mean() < 0.6
    assert (shown[False] == shown[True]).mean() > 0.99
