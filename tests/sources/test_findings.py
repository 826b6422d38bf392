"""One finding has one name, however a collection or a user spells it."""

import re
from itertools import combinations

import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources import chexpert, covid, kaggle_pneumonia, medmnist, nih14, padchest, rsna
from fluoroscope.sources.findings import APART, FINDINGS, OWN, Name, finding, names_of, pair, plain
from fluoroscope.sources.reading.shared_labels import available_labels
from tests.support.collections import touch
from tests.support.real_rows import real_rows, write_rows

CHEXPERT = dict.fromkeys(chexpert.FINDINGS)
# By the label of CheXpert, that of ChestX-ray14 and of PadChest, as their papers define them.
ALIKE = {
    "Cardiomegaly": ("Cardiomegaly", "cardiomegaly"),
    "Edema": ("Edema", "pulmonary edema"),
    "Consolidation": ("Consolidation", "consolidation"),
    "Pneumonia": ("Pneumonia", "pneumonia"),
    "Atelectasis": ("Atelectasis", "atelectasis"),
    "Pneumothorax": ("Pneumothorax", "pneumothorax"),
    "Pleural Effusion": ("Effusion", "pleural effusion"),
}


def write_nih(root, count=300):
    rows = real_rows("Data_Entry_2017_v2020.csv", count)
    write_rows(root / "Data_Entry_2017_v2020.csv", rows)
    touch(*(root / "images" / row["Image Index"] for row in rows))
    return root


def write_chexpert(root, count=300):
    rows = real_rows("chexpert_train.csv", count)
    write_rows(root / "train.csv", rows)
    touch(*(root / row["Path"].removeprefix("CheXpert-v1.0-small/") for row in rows))
    return root


def write_padchest(root, count=300):
    rows = real_rows(padchest.CSV, count)
    write_rows(root / padchest.CSV, rows)
    touch(*(root / "images" / row["ImageID"] for row in rows))
    return root


def write_vindr(root):
    rows = real_rows("vinbigdata-train.csv", 3000)
    write_rows(root / "train.csv", rows)
    touch(*(root / f"train/{row['image_id']}.dicom" for row in rows))
    return root


def section(source, root, **keys):
    return {"source": source, "root": str(root), "label_map": {}, **keys}


# ------------------------------------------------------------------------------------- the table
def test_no_spelling_means_two_findings():
    words = [plain(word) for name, more in FINDINGS.items() for word in (name, *more)]
    assert len(words) == len(set(words))


def test_labels_that_stay_apart_have_a_name_and_a_reason_each():
    names = [apart.name for apart in APART]
    assert len(names) == len(set(names))
    for one, other in combinations(APART, 2):
        if plain(one.spelling) == plain(other.spelling):
            assert not set(one.sources) & set(other.sources)
    for apart in APART:
        assert apart.reason
        assert {*apart.sources} <= {*sources.names()} - {*OWN}
        assert finding(Name(apart.name)) == apart.name


@pytest.mark.parametrize("name", [*FINDINGS, "Blob"])
@pytest.mark.parametrize("change", [str.upper, str.lower, str.title])
def test_capitals_spaces_and_hyphens_do_not_count(name, change):
    for joint in (" ", "_", "-", "  "):
        assert finding(Name(change(name).replace(" ", joint))) == finding(Name(name))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Name("Infiltration", "nih14"), Name("Infiltration", "vindr")),
        (Name("Infiltration", "nih14"), Name("infiltrates", "padchest")),
        (Name("Consolidation", "nih14"), Name("Lung Opacity", "chexpert")),
        (Name("Lung Opacity", "chexpert"), Name("Lung Opacity", "rsna")),
        (Name("Mass", "nih14"), Name("mass", "padchest")),
        (Name("No Finding", "nih14"), Name("No Finding", "chexpert")),
        (Name("No finding", "vindr"), Name("No Finding", "mimic_cxr")),
        (Name("Fracture", "chexpert"), Name("fracture", "padchest")),
        (Name("Nodule", "nih14"), Name("Nodule/Mass", "vindr")),
        (Name("Pneumonia", "nih14"), Name("Viral Pneumonia", "covid")),
        (Name("Infiltration (nih14)"), Name("Infiltration", "vindr")),
    ],
)
def test_these_do_not_correspond(one, other):
    for a, b in ((one, other), (other, one)):
        assert pair({"a": a}, {"b": b}) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Name("Effusion", "nih14"), Name("Pleural effusion", "vindr")),
        (Name("Infiltration", "nih14"), Name("Infiltration", "medmnist")),
        (Name("Lung_Opacity", "covid"), Name("Lung Opacity", "rsna")),
        (Name("Lung Opacity", "mimic_cxr"), Name("Lung Opacity", "vindr")),
        (Name("Mass", "nih14"), Name("pulmonary mass", "padchest")),
        (Name("Viral", "kaggle_pneumonia"), Name("Viral Pneumonia", "covid")),
        (Name("Infiltration", "nih14"), Name("INFILTRATION", "table")),
        (Name("Infiltration (nih14)"), Name("Infiltration", "medmnist")),
        (Name("Infiltration (nih14)"), Name("infiltration", "folder")),
        (Name("Blob", "folder"), Name("blob", "table")),
        (Name("Pneumonia", "chexpert"), Name("PNEUMONIA", "folder")),
        (Name("Tuberculosis", "shenzhen"), Name("tb", "folder")),
    ],
)
def test_these_do(one, other):
    for a, b in ((one, other), (other, one)):
        assert pair({"a": a}, {"b": b}) == {"a": "b"}


def test_two_labels_for_one_finding_are_refused():
    available = names_of(["Effusion", "pleural_effusion", "Mass"], "table")
    with pytest.raises(InputError, match=r"'x' can mean 'Effusion' or 'pleural_effusion'; write"):
        pair({"x": Name("Pleural Effusion", "chexpert")}, available)
    assert pair({"x": Name("Effusion", "table")}, available) == {"x": "Effusion"}


VINDR = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,"
    "Edema,Emphysema,Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,"
    "Mediastinal shift,Nodule/Mass,Pleural effusion,Pleural thickening,Pneumothorax,"
    "Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,Tuberculosis,"
    "Other diseases,No finding"
)


def test_labels_that_two_sources_spell_alike_are_in_one_of_the_tables():
    """Otherwise they would match by chance, or not at all."""
    cells = " ".join(row["Labels"] for row in real_rows(padchest.CSV, 5000))
    lists = {
        "nih14": [*nih14.FINDINGS, "No Finding"],
        "chexpert": chexpert.FINDINGS,
        "padchest": sorted({name.strip() for name in re.findall("'([^']+)'", cells)}),
        "vindr": VINDR.split(","),
        "rsna": [rsna.OPACITY, *rsna.FURTHER],
        "covid": [*covid.FINDINGS, covid.NORMAL],
        "kaggle_pneumonia": kaggle_pneumonia.LABELS,
        "shenzhen": ["Tuberculosis"],
        "siim_pneumothorax": ["Pneumothorax"],
    }
    assert len(lists["padchest"]) > 130
    known = {*FINDINGS} | {apart.name for apart in APART}
    for (one, ours), (other, theirs) in combinations(lists.items(), 2):
        for word in {*map(plain, ours)} & {*map(plain, theirs)}:
            assert {finding(Name(word, one)), finding(Name(word, other))} <= known, word


# ------------------------------------------------------------------------- real rows, three sources
def test_from_chexpert_to_nih_to_padchest_on_real_rows(tmp_path):
    """The pairs are those of the papers, and what is learnt from one is asked of the others."""
    roots = {
        "chexpert": write_chexpert(tmp_path / "chexpert"),
        "nih14": write_nih(tmp_path / "nih"),
        "padchest": write_padchest(tmp_path / "padchest", 1500),
    }
    known = {name: available_labels(section(name, root)) for name, root in roots.items()}
    assert list(known["nih14"]) == [*nih14.FINDINGS, "No Finding"]
    first = pair(known["chexpert"], known["nih14"])
    assert first == {a: b for a, (b, _) in ALIKE.items()}
    second = pair({label: known["nih14"][label] for label in first.values()}, known["padchest"])
    assert second == dict(ALIKE.values())
    whole = pair(known["nih14"], known["padchest"])
    paired = dict(zip(nih14.FINDINGS, PADCHEST_OF_NIH, strict=True))
    assert whole == {nih: padchest for nih, padchest in paired.items() if padchest}
    for place in (0, 1):
        source = ("nih14", "padchest")[place]
        own = [names[place] for names in ALIKE.values()]
        asked = sources.load(source, roots[source], [*ALIKE]).table
        spelt = sources.load(source, roots[source], own).table
        assert label_columns(asked) == own
        assert asked.equals(spelt)
        assert (asked[own].sum() > 0).any()


# of atelectasis, cardiomegaly, ...: the order of the fourteen
PADCHEST_OF_NIH = [name if name != "infiltrates" else None for name in padchest.FINDINGS]


def test_every_source_takes_every_spelling(tmp_path):
    nih, vindr = write_nih(tmp_path / "nih"), write_vindr(tmp_path / "vindr")
    for word in ("effusion", "Pleural Effusion", "PLEURAL-EFFUSION", "pleural_effusion"):
        assert label_columns(sources.load("nih14", nih, [word]).table) == ["Effusion"]
        assert label_columns(sources.load("vindr", vindr, [word]).table) == ["Pleural effusion"]
    assert label_columns(sources.load("nih14", nih, ["effusion", "Pleural Effusion"]).table) == [
        "Effusion"
    ]
    table = sources.load("vindr", vindr, ["infiltration", "atelectases"]).table
    assert label_columns(table) == ["Infiltration", "Atelectasis"]
    root = write_padchest(tmp_path / "padchest")
    labels = ["Mass", "mass", "Hernia", "Edema"]
    found = label_columns(sources.load("padchest", root, labels[:1] + labels[2:]).table)
    assert found == ["pulmonary mass", "hiatal hernia", "pulmonary edema"]


def test_the_refusal_says_why_nothing_corresponds(tmp_path):
    root = write_padchest(tmp_path / "padchest")
    told = r"contains 'Infiltration', but no image .*; Infiltration is a label of its own: reports"
    with pytest.raises(InputError, match=told):
        sources.load("padchest", root, ["edema", "Infiltration"])
    with pytest.raises(InputError, match=r"data.labels must be one of .*'edemma' .*mean 'Edema'"):
        sources.load("nih14", write_nih(tmp_path / "nih"), ["Pleural Effusion", "edemma"])


# ------------------------------------------------------------------------------ names of one's own
@pytest.fixture
def own(tmp_path):
    (tmp_path / "own").mkdir()
    lines = ["path,Ergüsse,x,Mass", "a.png,1,0,1", "b.png,0,1,0"]
    (tmp_path / "own/own.csv").write_text("\n".join(lines))
    touch(tmp_path / "own/a.png", tmp_path / "own/b.png")
    return {"source": "table", "root": tmp_path / "own", "csv": "own.csv", "path_column": "path"}


def test_a_label_map_names_labels_of_ones_own(own):
    asked = ["Effusion", "pulmonary mass"]
    table = sources.load(**own, labels=asked, label_map={"Ergüsse": "pleural effusion"}).table
    assert label_columns(table) == ["Ergüsse", "Mass"]
    assert table["Ergüsse"].tolist() == [1, 0]
    again = sources.load(**own, labels=["Ergüsse", "Mass"], label_map={"Ergüsse": "Effusion"})
    assert again.table.equals(table)  # a resumed run asks for the table's own names


def test_a_label_map_is_checked(own):
    told = "data.label_map: the collection has no label 'Erguss' (did you mean 'Ergüsse'?); it has"
    with pytest.raises(InputError, match=re.escape(told)):
        sources.load(**own, labels=["Mass"], label_map={"Erguss": "Effusion"})
    with pytest.raises(InputError, match=r"'MASS' can mean 'x' or 'Mass'"):
        sources.load(**own, labels=["MASS"], label_map={"x": "mass"})


def test_medmnist_spells_as_nih():
    assert {*medmnist.FINDINGS["chestmnist"]} == {*nih14.FINDINGS}
