import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.config import CONF, schema
from fluoroscope.config.dashboard import Dashboard, check_dashboard, run_keys
from fluoroscope.config.train import Train
from fluoroscope.diagnostics.keys import METRICS
from fluoroscope.errors import InputError
from fluoroscope.model.activation_table import ACTIVATIONS
from fluoroscope.tracking import dashboard, wandb_project
from fluoroscope.tracking.panels import SECTIONS, Bars, Curves
from tests.support.wandb_store import rows_of

SCRIPT = Path(__file__).parents[2] / "scripts/dashboard.py"
PANELS = [(section, panel) for section, panels in SECTIONS.items() for panel in panels]
CURVES = [panel for _, panel in PANELS if isinstance(panel, Curves)]
# Key of a metric: when it is logged.
LOGGED = {metric.pattern: metric.when for metric in METRICS}
WHEN = {metric.key(window): metric.when for metric in METRICS for window in metric.windows}


def settings(project="fluoroscope", entity=None, name="v", group_by="head.activation"):
    return Dashboard(project, entity, name, group_by, dry_run=False)


def drawn(**keys):
    """The view's JSON: its sections' panels by title, and the rest."""
    cfg = settings(**keys)
    spec = dashboard.spec(dashboard.workspace(cfg.name, cfg.project, "", cfg.group_by))
    sections = spec["section"]["panelBankConfig"]["sections"]
    panels = {panel["config"]["chartTitle"]: panel for s in sections for panel in s["panels"]}
    return spec, sections, panels


def reach(nested, path):
    """The value at a dotted path of W&B's, in which a key may hold dots and slashes itself."""
    for key in sorted(nested, key=len, reverse=True):
        if path == key:
            return nested[key]
        if path.startswith(f"{key}."):
            return reach(nested[key], path.removeprefix(f"{key}."))
    raise AssertionError(path)


# What is drawn of what is logged ----------------------------------------------------------------


def test_every_curve_has_points_in_a_run(online):
    rows = rows_of(online.run)
    names = {"RelativeTime(Process)": "_runtime"}
    for curve in CURVES:
        for key in curve.keys:
            points = [row for row in rows if {key, names.get(curve.x, curve.x)} <= set(row)]
            assert len(points) >= 2, (curve.title, key, curve.x)


def test_every_number_of_a_run_is_in_its_summary(online):
    summary = json.loads(online.run["files"]["wandb-summary.json"][-1])
    spec, _, panels = drawn()
    paths = [*panels["Test AUROC"]["config"]["metrics"]]
    for _, panel in PANELS:
        if not isinstance(panel, Curves):
            config = panels[panel.title]["config"]
            paths += config.get("metrics") or [config["xAxis"], config["yAxis"]]
    columns = spec["section"]["runSets"][0]["runFeed"]["columnOrder"]
    assert columns[0] == "run:displayName"
    config = json.loads(online.run["config"])
    for path in [path.removeprefix("summary:") for path in [*paths, *columns[1:]]]:
        stored = config if path.startswith("config:") else summary
        assert isinstance(reach(stored, path.removeprefix("config:")), int | float), path


def test_every_quantity_of_the_monitor_has_a_panel():
    keys = {key for curve in CURVES for key in curve.keys}
    for key in LOGGED:
        assert re.sub("{.*}", "val", key) in keys, key
    assert {"test/auroc", "val/auroc", "val/loss", "train/loss"} <= {
        key for _, panel in PANELS for key in panel.keys
    }


def test_sections_are_those_that_were_asked_for():
    _, sections, panels = drawn()
    assert [s["name"] for s in sections] == ["Outcome", "Head units", "Gradients", "Speed"]
    assert all(section["isOpen"] for section in sections)
    assert sum(len(section["panels"]) for section in sections) == len(PANELS) == len(panels)
    for section in sections:
        flow = section["flowConfig"]
        assert flow["columnsPerPage"] * flow["rowsPerPage"] >= len(section["panels"])


# How it is drawn --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"), [("head.activation", "relu"), ("seed", 1), ("backbone.frozen", True)]
)
def test_runs_are_grouped_by_what_their_stored_configuration_holds(key, value, online):
    stored = json.loads(online.run["config"])
    spec, _, panels = drawn(group_by=key)
    (group,) = spec["section"]["runSets"][0]["grouping"]
    assert group["section"] == "config"
    assert reach(stored, group["name"]) == value
    for _, panel in PANELS:
        if isinstance(panel, Curves | Bars):
            config = panels[panel.title]["config"]
            assert reach(stored, config["groupBy"]) == value, panel.title
            assert (config["groupAgg"], config["groupArea"]) == ("mean", "minmax")
            assert config["aggregate"]


def test_windows_are_drawn_by_epoch_and_steps_by_step_lightly_smoothed():
    _, _, panels = drawn()
    seen = set()
    for section, curve in PANELS:
        if section == "Speed" or not isinstance(curve, Curves):
            continue
        config = panels[curve.title]["config"]
        for key in curve.keys:
            step = WHEN.get(key) == "step" or key == "train/loss"
            seen.add(step)
            assert config["xAxis"] == ("trainer/global_step" if step else "epoch"), key
            assert config["smoothingType"] == ("exponentialTimeWeighted" if step else "none"), key
            assert config["smoothingWeight"] == (0.5 if step else 0), key
        assert config.get("yLogScale", False) == (
            key.startswith(("grad/l2", "grad/f", "grad/u")) and step
        )
        if "frac" in key:
            assert config["yAxisMin"] == 0, key
    assert seen == {True, False}


def test_no_activation_is_hidden_by_a_limit():
    spec, _, panels = drawn()
    limits = [panels[panel.title]["config"]["limit"] for _, panel in PANELS if panel in CURVES]
    assert min(*limits, spec["section"]["settings"]["maxRuns"]) > 2 * len(ACTIVATIONS)


# On the server ----------------------------------------------------------------------------------


def sent(view):
    """A view's specification without the ids that each of its panels is given anew."""
    return re.sub(r'"__id__": ?"\w+"', "", json.dumps(json.loads(view["spec"])))


def test_a_view_is_saved_and_then_replaced(account, capfd):
    replaced, url = dashboard.save(settings())
    (view,) = account.store.views
    assert not replaced
    assert (view["displayName"], view["type"]) == ("v", "project-view")
    slug = re.fullmatch("nw-(.+)-v", view["name"])[1]
    assert url == f"{account.server.url}/local/fluoroscope?nw={slug}"
    local = {"spec": json.dumps(drawn()[0])}
    assert sent(view) == sent(local)

    assert dashboard.save(settings(group_by="head.order")) == (True, url)
    (again,) = account.store.views
    assert again["id"] == view["id"]
    assert sent(again) == sent({"spec": json.dumps(drawn(group_by="head.order")[0])})

    assert dashboard.save(settings(name="w"))[0] is False
    assert [view["displayName"] for view in account.store.views] == ["v", "w"]
    assert capfd.readouterr() == ("", "")


def test_a_colleagues_view_of_the_same_name_is_left_alone(account, monkeypatch):
    dashboard.save(settings())
    monkeypatch.setattr(account.store, "user", "colleague")
    assert dashboard.save(settings(group_by="seed"))[0] is False
    assert [v["user"]["username"] for v in account.store.views] == ["local", "colleague"]


def test_nothing_of_this_machine_is_sent(account, tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "name-of-a-person")
    monkeypatch.setenv("LOGNAME", "name-of-a-person")
    before = len(account.server.received)
    dashboard.save(settings())
    text = "\n".join(account.server.received[before:])
    assert "Head units" in text
    for secret in (str(tmp_path), str(SCRIPT.parents[1]), "name-of-a-person"):
        assert secret not in text


def test_main_says_where_the_view_is(account, capsys):
    dashboard.main(settings())
    dashboard.main(settings())
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"workspace saved: {account.server.url}/local/fluoroscope?nw=")
    assert second == first.replace("saved", "replaced")


# A dry run --------------------------------------------------------------------------------------


def test_a_dry_run_needs_neither_key_nor_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        env = {**os.environ, "WANDB_BASE_URL": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        command = [sys.executable, str(SCRIPT), "--dry-run", "group_by=head.order"]
        keys = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
        done = subprocess.run(command, check=True, **keys)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert sent({"spec": done.stdout}) == sent(
        {"spec": json.dumps(drawn(group_by="head.order")[0])}
    )
    lines = done.stderr.splitlines()
    assert [line for line in lines if line in SECTIONS] == list(SECTIONS)
    assert "  Dead units: units/val/dead_frac" in lines
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Bad input --------------------------------------------------------------------------------------


def refusal(**keys):
    with pytest.raises(InputError) as error:
        dashboard.save(settings(**keys))
    return str(error.value)


def test_without_a_key_it_says_so(server, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    assert "no key is set (`wandb login` sets one)" in refusal()
    assert server.received == []


def test_a_server_that_is_gone_is_told_within_seconds(server):
    server.close()
    started = time.perf_counter()
    assert "no answer within 3 s" in refusal()
    assert time.perf_counter() - started < 8


@pytest.mark.parametrize("after", [0, 1, 2])  # the key, the account, the project
def test_a_server_that_stalls_is_not_waited_for(after, server, monkeypatch):
    assert wandb_project.TIMEOUT_S <= 10
    monkeypatch.setattr(wandb_project, "TIMEOUT_S", 1)
    server.trouble, server.after = "stall", after
    started = time.perf_counter()
    assert f"the W&B server {server.url} refused, or did not answer" in refusal()
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("trouble", [401, "html"])
@pytest.mark.parametrize("after", [0, 2])
def test_a_server_that_refuses_is_told(trouble, after, server):
    server.trouble, server.after = trouble, after
    line = refusal()
    assert "refused" in line
    assert "`wandb login`" in line
    assert len(line) < 300


def test_a_page_in_place_of_an_answer_is_cut_short(server):
    with pytest.raises(InputError) as error, wandb_project.refusals():
        raise ValueError("<p>" * 1000)
    assert 200 < len(str(error.value)) < 300


def test_a_project_or_entity_that_is_not_there_is_told(account):
    assert "sees no W&B project local/other;" in refusal(project="other")
    assert "sees no W&B project nobody/fluoroscope;" in refusal(entity="nobody")
    assert account.store.views == []


def test_a_project_without_runs_is_told(account, monkeypatch):
    monkeypatch.setattr(account.store, "_count", lambda sent: {"id": "p1", "runCount": 0})
    monkeypatch.setitem(account.store._answers, "RunCount", account.store._count)
    assert refusal() == "the W&B project local/fluoroscope has no runs yet"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("project=''", "project must be 1 to 128 characters"),
        ("project=team/p", r"entity=ENTITY project=PROJECT"),
        ("entity=''", "entity must be 1 to 128 characters"),
        ("name=''", "name must be text"),
        ('name="x 😀"', "name must be text without symbols"),
        ("group_by=head.activtion", "did you mean 'head.activation'"),
        ("group_by=head", "runs have no key head"),
        ("group_by=defaults", "runs have no key defaults"),
        ("group_by=hydra.run.dir", "runs have no key hydra.run.dir"),
        ("dry_run=maybe", "dry_run must be true or false"),
    ],
)
def test_bad_keys_are_refused(override, told):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("dashboard", [override])
    with pytest.raises(InputError, match=told):
        check_dashboard(cfg)


def test_the_keys_that_group_are_those_of_the_typed_configuration():
    typed = [OmegaConf.structured(Train(data=sources.keys_of(name)())) for name in sources.names()]
    known = {key for shape in typed for key in schema.keys(shape)}
    assert run_keys() == known - {"loggers"}  # a run stores there what is added below logger


@pytest.mark.parametrize("key", ["data.patient_pattern", "head.activation_args.negative_slope"])
def test_keys_of_another_source_and_arguments_can_group(key):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("dashboard", [f"group_by={key}"])
    assert check_dashboard(cfg).group_by == key


def test_the_project_is_by_default_where_runs_go_by_default():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run, own = compose("train").logger, compose("dashboard")
    assert (own.project, own.entity) == (run.project, run.entity)
