import dataclasses
import json
import re
from base64 import b64decode

import pytest

from fluoroscope.errors import InputError
from fluoroscope.reporting import tables
from fluoroscope.reporting.basis import basis
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.reporting.figures import verdict_pngs
from fluoroscope.reporting.verdict import Verdict
from fluoroscope.tracking.panels import SECTIONS
from fluoroscope.tracking.wandb_report import publish
from tests.reporting.folders import write_run

DECIDED = Verdict("Not destructive on these data.", ["More seeds."], False)
RUNS = [("relu", 1), ("relu", 2), ("identity", 1), ("identity", 2)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two activations, two seeds, two orders; runs of the second order have no id of W&B."""
    tmp_path = tmp_path_factory.mktemp("compared")
    for order in ("activation-norm", "norm-activation"):
        for name, seed in RUNS:
            folder = write_run(tmp_path / f"{order}-{name}-{seed}", name, seed, head__order=order)
            if order == "activation-norm":
                told = {"run_id": f"id-{name}-s{seed}"}
                (folder / "provenance.json").write_text(json.dumps(told))
    return compare(collect([tmp_path]))


@pytest.fixture
def logged(server, add):
    """The project of the runs of the first order."""
    for name, seed in RUNS:
        add(server.store, f"{name}-s{seed}", head={"activation": name})
    return server


def put(comparison, folder, verdict=DECIDED, project="p"):
    folder.mkdir(exist_ok=True)
    return publish(comparison, verdict, folder, project=project, entity=None)


def blocks(server):
    (view,) = server.store.views
    return json.loads(view["spec"])["blocks"]


def words(node):
    """All text of a block, in order."""
    if isinstance(node, dict):
        return "".join(node["text"] if key == "text" else words(node[key]) for key in node)
    return "".join(map(words, node)) if isinstance(node, list) else ""


def test_it_holds_the_verdict_and_the_tables_in_full(compared, logged, tmp_path):
    url = put(compared, tmp_path / "report")
    (view,) = logged.store.views
    title = "Activations compared: Nodule, Mass"
    assert (view["type"], view["displayName"]) == ("runs", title)
    assert url.startswith(f"{logged.url}/local/p/reports/Activations-compared:")
    assert url.endswith(f"--{view['id']}")
    told = blocks(logged)
    text = "\n".join(map(words, told))
    for sentence in (DECIDED.headline, *DECIDED.advice, "seeds: 1, 2"):
        assert sentence in text, sentence
    shown = [block["content"] for block in told if block["type"] == "markdown-block"]
    assert shown.pop(0) == tables.markdown(basis(compared))
    assert len(shown) == 4
    for n, setting in enumerate(compared.settings):
        assert setting.label in text
        for part, found in zip((tables.MAIN, tables.MORE), shown[2 * n : 2 * n + 2], strict=True):
            assert found == tables.markdown(tables.table(setting, part, "relu"))
            assert {"relu", "identity"} <= set(re.findall(r"^\| (\w+)", found, re.MULTILINE))


def test_the_figure_of_the_verdict_is_within_the_report(compared, logged, tmp_path):
    put(compared, tmp_path / "report")
    told = blocks(logged)
    images = [block for block in told if block["type"] == "image"]
    assert [words(block) for block in images] == [
        f"Setting {n}: {setting.label}" for n, setting in enumerate(compared.settings, 1)
    ]
    for block, (_, file) in zip(images, verdict_pngs(compared), strict=True):
        kind, _, data = block["url"].partition(",")
        assert kind == "data:image/png;base64"
        assert b64decode(data) == file
    assert words(told[told.index(images[0]) - 1]) == DECIDED.headline


def test_its_curves_are_of_the_runs_that_were_compared(compared, logged, tmp_path):
    put(compared, tmp_path / "report")
    told = blocks(logged)
    grids = [block["metadata"] for block in told if block["type"] == "panel-grid"]
    assert len(grids) == len(SECTIONS)
    for grid, panels in zip(grids, SECTIONS.values(), strict=True):
        (runset,) = grid["runSets"]  # the runs of the second order are not there
        assert runset["project"]["name"] == "p"
        assert runset["grouping"] == [{"section": "config", "name": "head.value.activation"}]
        filters = json.dumps(runset["filters"])
        assert set(re.findall(r"id-\w+-s\d", filters)) == {f"id-{a}-s{s}" for a, s in RUNS}
        drawn = grid["panelBankSectionConfig"]["panels"]
        assert [p["config"]["chartTitle"] for p in drawn] == [panel.title for panel in panels]
        cells = {
            (p["layout"]["x"] + x, p["layout"]["y"] + y)
            for p in drawn
            for x in range(8)
            for y in range(6)
        }
        assert len(cells) == 48 * len(drawn)  # none lies over another
        assert max(x for x, _ in cells) < 24


def test_without_a_run_online_there_are_no_empty_panels(compared, server, add, tmp_path):
    add(server.store, "another")
    put(compared, tmp_path / "report")
    told = blocks(server)
    assert not [block for block in told if block["type"] == "panel-grid"]
    assert "none of these runs is in this project" in "".join(map(words, told))


def test_a_report_of_the_same_folder_replaces_the_former(compared, logged, add, tmp_path):
    url = put(compared, tmp_path / "report")
    changed = dataclasses.replace(DECIDED, headline="Destructive after all.")
    assert put(compared, tmp_path / "report", changed) == url
    (view,) = logged.store.views
    assert "Destructive after all." in view["spec"]
    assert DECIDED.headline not in view["spec"]
    put(compared, tmp_path / "second")
    add(logged.store, "elsewhere", project="q")
    put(compared, tmp_path / "report", project="q")
    assert [view["in"] for view in logged.store.views] == ["p", "p", "q"]


def test_no_path_is_sent(compared, logged, tmp_path):
    line = f"{tmp_path}/ward-7/relu-s9 failed: left out"
    common = compared.common | {"weights": f"{tmp_path}/w.pth"}
    told = dataclasses.replace(compared, left_out=[line, line], common=common)
    put(told, tmp_path / "report")
    received = "\n".join(logged.received)
    assert "left out: 2" in received
    assert str(tmp_path) not in received
    assert "ward-7" not in received


def test_settings_that_differ_in_a_path_are_refused(compared, logged, tmp_path):
    setting = dataclasses.replace(compared.settings[0], setting={"backbone.file": "/a/ward-7.pth"})
    with pytest.raises(InputError, match=r"runs differ in backbone\.file, text") as error:
        put(dataclasses.replace(compared, settings=[setting]), tmp_path / "report")
    assert "ward-7" not in str(error.value)
    assert logged.received == []


def test_a_project_that_is_not_there_is_refused_and_not_made(compared, logged, tmp_path):
    with pytest.raises(InputError, match="sees no W&B project local/typo"):
        put(compared, tmp_path / "report", project="typo")
    assert logged.store.views == []


@pytest.mark.parametrize(
    "after", [3, *(pytest.param(n, marks=pytest.mark.whole) for n in (4, 5, 7))]
)
def test_a_server_that_fails_on_the_way_is_told(after, compared, logged, tmp_path):
    logged.trouble, logged.after = 401, after
    with pytest.raises(InputError, match="refused, or did not answer"):
        put(compared, tmp_path / "report")
    assert not list((tmp_path / "report").iterdir())
