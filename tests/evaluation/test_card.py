"""The model card holds what the files say, and nothing that they do not."""

import json
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from fluoroscope.errors import InputError
from fluoroscope.evaluation.card import NOT_KNOWN, SECTIONS, card, make_card
from fluoroscope.evaluation.card_facts import facts
from fluoroscope.evaluation.card_sources import Sources, read_evaluation, sources_of
from fluoroscope.evaluation.checklists import CLAIM, TRIPOD
from fluoroscope.evaluation.wording import estimate
from fluoroscope.trained.calibration import Calibration, LabelCalibration
from fluoroscope.trained.loading import open_trained
from tests.support.evaluations import make_content, make_predictions

LABELS = ("Pneumonia", "Mass")
CONFIG = {
    "seed": 7,
    "data": {
        **{"source": "nih14", "image_px": 128, "views": ["PA"], "fold": None, "splits": "own"},
        **{"val_frac": 0.15, "test_frac": 0.2, "augment": [{"name": "Affine"}]},
        **{"batch_size": 32, "sampler": "shuffle"},
    },
    "backbone": {"name": "resnet18", "frozen": True, "weights": "none"},
    "head": {
        **{"width": 896, "activation": "gelu", "order": "activation-norm", "norm": "batch"},
        "init": "keras",
    },
    "optimizer": {"lr": 0.001, "backbone_lr": 0.0001, "weight_decay": 0.01},
    "loss": {"name": "bce", "pos_weight": None},
}
RUN = {
    **{"source": "nih14", "split_fingerprint": "abc", "skipped_images": 3, "epochs": 5},
    **{"steps": 80, "best_epoch": 4, "total_s": 60.2, "width": 896, "activation": "gelu"},
    "splits": [
        {"split": "train", "images": 1511, "patients": 336, "Pneumonia": 257, "Mass": 9},
        {"split": "test", "images": 112, "patients": None, "Pneumonia": 54, "Mass": 2},
    ],
    "test": {"auroc": 0.91, "auroc_low": 0.85, "auroc_high": 0.95, "images": 112},
    "units": {"val/dead_frac": 0.0, "val/dead_max": 0.0, "val/linear_frac": 0.1},
    "grad": {"last": {"features_zero_frac": 0.0, "l2/backbone": 1.0}},
    "head": {"bias_init": None, "init": "keras", "activation": "gelu", "order": "x"},
}
RUN["units"] |= {"val/blackout_frac": 0.0, "val/zero_frac": 0.0}
PROVENANCE = {
    **{"started": "2026-11-01", "python": "3.11.7", "packages": {"torch": "2.15.0"}},
    **{"device": "cpu", "commit": "c0ffee", "uncommitted_changes": True},
    "decisions": [{"policy": "uncertain labels: zeros", "counts": {"Mass": 1200, "Edema": 34}}],
}
OWN = LabelCalibration(1.93, (0.5, 0.1), 109, 55, {"youden": 0.5}, {"youden": 0.3})
CALIBRATION = Calibration(dict.fromkeys(LABELS, OWN), "f" * 16, "s" * 16, {"pixels": 1})
BARE = Sources(LABELS, "f" * 16, CONFIG, 11_176_512)
# Of the configuration alone: what a checkpoint that lies alone says about itself.
FROM_CONFIG = {
    *("technology", "model", "predictors", "input", "output", "preprocessing", "source"),
    *("subset", "missing", "partition", "initial", "training", "imbalance", "ensemble", "code"),
}
NEEDS = {
    "run": {"disjoint", "counts", "selection", "census", "gradient"},
    "provenance": {"software", "hardware", "started"},
    "calibration": {"calibration", "poor_input"},
}


def content(**more):
    table = make_predictions(LABELS, 120)
    probes = {"summary": "1 label is called out", "called_out": ["Mass: it reads markers"]}
    groups = {"groups": [], "sentences": ["no gap is decided"], "point": "", "level": 0.95}
    parts = {"probes": probes, "subgroups": groups, "notes": ["few images"]}
    made = make_content(table, LABELS, **parts)
    made["macro"] |= {"ece_before": {"value": 0.2, "low": 0.1, "high": 0.3}}
    return made | more


@pytest.fixture(scope="module")
def full():
    return replace(
        BARE, run=RUN, provenance=PROVENANCE, calibration=CALIBRATION, evaluation=content()
    )


def cells(text):
    """The tables of the card as a reader of Markdown gets them: rows of texts."""
    rows, inside = [], False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        inside = token.type in ("th_open", "td_open") or (inside and token.type == "inline")
        if token.type == "inline" and inside:
            words = [t.content for t in token.children if t.type in ("text", "text_special")]
            rows[-1].append("".join(words))
    return rows


def test_the_guidelines_have_all_their_items_in_order():
    assert [item.number for item in CLAIM] == [str(n) for n in range(1, 45)]
    parts = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef"}
    parts |= {20: "abc", 23: "ab", 27: "abc"}
    assert [item.number for item in TRIPOD] == [
        f"{n}{part}" for n in range(1, 28) for part in parts.get(n, [""])
    ]


def elsewhere():
    """The evaluation on another collection, which was joined of two, recalibrated there."""
    again = {"share": 0.25, "labels": {"Mass": {"why_not": ""}, "Nodule": {"why_not": "too few"}}}
    groups = [{"attribute": name, "label": "Mass"} for name in ("sex", "collection")]
    return content(
        collection={"sentences": ["rarer here"], "recalibration": again},
        subgroups={"groups": groups, "sentences": ["sex: a gap", "collection: no gap was found"]},
    )


def test_clusters_and_updating_are_said_only_of_what_was_done(full):
    here, there = facts(full), facts(replace(full, evaluation=elsewhere()))
    assert not {"clusters", "updating"} & set(here)
    assert there["clusters"] == "collection: no gap was found"
    assert "25 % of the patients of the evaluated collection, for Mass;" in there["updating"]


def test_each_item_points_at_a_fact_that_exists(full):
    known = {*facts(full), *facts(replace(full, evaluation=elsewhere())), ""}
    for items in (CLAIM, TRIPOD):
        assert {item.fact for item in items} <= known
    shown = {fact for names in SECTIONS.values() for fact in names}
    assert shown - known == {"energy"}


def test_nothing_is_said_that_the_files_do_not_say(full):
    assert set(facts(BARE)) == FROM_CONFIG
    for name, needing in NEEDS.items():
        lacking = replace(full, **{name: getattr(BARE, name)})
        assert set(facts(full)) - set(facts(lacking)) == needing, name
    assert facts(replace(full, run={}))["eligibility"] == "uncertain labels: zeros (1,234)"
    assert "eligibility" not in facts(replace(full, run={}, provenance={}))
    of_run = facts(replace(full, evaluation=None))
    assert of_run["performance"] == "test AUROC 0.910 (95 % interval 0.850 to 0.950)"
    assert set(facts(full)) - set(of_run) == {
        *("decisions", "calibration_gain", "failures", "limits", "subgroups", "probes"),
        "difference",
    }


def test_an_item_is_filled_if_its_fact_is_known(full):
    for sources in (BARE, full):
        known = facts(sources)
        rows = cells(card(sources))
        for items in (CLAIM, TRIPOD):
            for item in items:
                row = next(r for r in rows if r[:2] == [item.number, item.words])
                assert row[2] == known.get(item.fact, NOT_KNOWN)
        filled = sum(item.fact in known for item in CLAIM)
        assert f"{filled} of 44 items are filled from the files." in card(sources)
    assert "23 of 44" not in card(BARE)


def test_the_numbers_are_those_of_the_files(full):
    text = card(full)
    rows = cells(text)
    made = full.evaluation
    assert ["train", "1,511", "336", "257", "9"] in rows
    assert ["test", "112", "n/a", "54", "2"] in rows
    mass = next(row for row in rows if row[0] == "Mass" and len(row) == 7 and "of 120" in row[-1])
    assert mass[1] == estimate(made["labels"]["Mass"]["auroc"])
    point = made["labels"]["Mass"]["points"]["sensitivity_90"]
    row = next(r for r in rows if r[:2] == ["Mass", "sensitivity ≥ 0.90"])
    assert row[2:5] == [
        f"{point['threshold']:.3g}",
        estimate(point["sensitivity"]),
        estimate(point["specificity"]),
    ]
    for told in (
        "Pneumonia 1.93, Mass 1.93",
        "11,176,512 weights",
        "the epoch with the best validation AUROC: 4 of 5",
        "3 unusable images left out; uncertain labels: zeros (1,234)",
        "commit c0ffee with uncommitted changes",
        "None of the head's 896 gelu units ended dead",
        "1 label is called out; Mass: it reads markers",
        "no gap is decided",
        "few images",
        "views PA",
    ):
        assert told in text
    assert "Energy of the training**: not known" in text


def test_names_in_markdown_stay_names():
    label = "a|b <script>x</script> [c](http://d) $e$"
    table = make_predictions([label], 60)
    own = Calibration({label: OWN}, "f" * 16, "s" * 16, {})
    sources = replace(
        BARE, labels=(label,), calibration=own, evaluation=make_content(table, [label])
    )
    text = card(sources)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {kind.type for token in tokens for kind in (token, *(token.children or []))}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "fence", "code_block"}
    heading = next(t for i, t in enumerate(tokens) if tokens[i - 1].type == "heading_open")
    shown = "".join(child.content for child in heading.children)
    assert shown == f"Model card: {label} in chest x-rays"
    widths = {}
    for row in cells(text):
        widths.setdefault(len(row), []).append(row)
    assert set(widths) == {3, 7}


def test_the_card_of_a_run_holds_no_place(trained_run, films):
    trained = open_trained(trained_run, "cpu")
    text = make_card(trained, None, None)
    assert str(films) not in text
    assert films.name not in text
    assert str(trained_run) not in text
    result = json.loads((trained_run / "result.json").read_text())
    assert f"test AUROC {result['test']['auroc']:.3f}" in text
    assert trained.fingerprint in text
    assert f"{sum(w.numel() for w in trained.network.parameters()):,} weights" in text


def test_a_checkpoint_alone_has_a_card_too(trained_run, tmp_path):
    file = tmp_path / "model.ckpt"
    file.write_bytes((trained_run / "checkpoints/best.ckpt").read_bytes())
    alone = sources_of(open_trained(file, "cpu"), None, None)
    assert (alone.run, alone.provenance) == ({}, {})
    assert set(facts(alone)) == FROM_CONFIG


def test_an_evaluation_of_other_weights_is_refused(trained_run, tmp_path):
    trained = open_trained(trained_run, "cpu")
    file = tmp_path / "evaluation.json"
    for values, why in (
        ({}, "is of another version"),
        ({"version": 1, "fingerprint": "0" * 16}, "is of other weights"),
        ([], "holds no JSON object"),
    ):
        file.write_text(json.dumps(values))
        with pytest.raises(InputError, match=why):
            read_evaluation(tmp_path, trained.fingerprint)
    file.write_text(json.dumps(own := {"version": 1, "fingerprint": trained.fingerprint}))
    assert read_evaluation(tmp_path, trained.fingerprint) == own
    with pytest.raises(InputError, match=r"evaluation\.json lacks an entry"):
        make_card(trained, None, own)
