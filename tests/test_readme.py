"""The README's commands, run as they stand there: on small films, with a small network."""

import importlib
import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from fluoroscope.command import command_line, entry
from fluoroscope.config import CONF
from fluoroscope.config.prepare import check_prepare
from fluoroscope.launch.run_id import IDENTITY
from fluoroscope.prepare import copying
from tests.support.collections import WRITERS, write_nih14
from tests.support.films import TINY, config, write_films
from tests.support.own_package import EXAMPLES, forgotten
from tests.support.studies import write_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = (
    *("ablation", "answer/README", "census", "coming_from", "comparison", "demo", "diagnostics"),
    "evaluate",
    *("explain", "export", "predict", "probes", "sweeps", "watch"),
)
PAGES = README + "".join(
    (ROOT / page).read_text() for page in ("data/README.md", *(f"docs/{name}.md" for name in DOCS))
)
# What keeps a documented run short; what it says itself comes after and wins.
SHORT = [key for key in TINY if not key.startswith("data=")] + ["trainer.max_epochs=1"]


def commands(text):
    """Every line of a bash block and every command in backticks, without its comment."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:python|make) [^`]+)`", text)
    lines = [line.replace("\\|", "|") for line in lines]  # as tables need it
    unique = dict.fromkeys(re.sub(r"\s+#.*", "", line).strip() for line in lines)
    return [line for line in unique if line]


def test_the_pages_hold_the_commands_that_are_tested():
    kinds = [command.split()[0] for command in commands(PAGES)]
    assert kinds.count("python") >= 10
    assert set(kinds) == {"python", "make", "source", "git"}


@pytest.fixture(scope="module")
def place(films, tmp_path_factory):
    """A working directory in which the placeholders of the pages exist."""
    root = tmp_path_factory.mktemp("readme")
    for source, write in WRITERS.items():
        write(films, root / source)
    write_nih14(write_films(root / "unseen", seed=1), root / "other")
    (root / "second").symlink_to(root / "run")
    copy = ["data=nih14", f"data.root={root / 'nih14'}", f"out={root / 'prepared'}", "audit=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        copying.main(check_prepare(compose("prepare", copy), copy))
    return root


def run(monkeypatch, place, command):
    """A documented `python scripts/X.py ...` in this process; its exit code."""
    _, script, *arguments = shlex.split(command)
    name = Path(script).stem
    source = next((a.removeprefix("data=") for a in arguments if a.startswith("data=")), "phantom")
    folder = place / ("other" if name == "evaluate" else source)
    stands_for = {"DIR": str(folder), "chest_xray": str(folder)}
    stands_for |= {"outputs/RUN": str(place / "run"), "outputs/OTHER": str(place / "second")}
    stands_for |= {"FILE.csv": "studies.csv"}
    stands_for |= {"outputs/SWEEP": str(place / "sweep"), "data/nih14-512px": str(folder)}
    for placeholder, real in stands_for.items():
        arguments = [a.replace(placeholder, real) for a in arguments]
    if name in ("train", "ablate"):
        arguments = [a for a in arguments if not a.startswith("seeds=")]
        own = {a.split("=")[0] for a in arguments}
        short = SHORT + BRIEF.get(name, [])
        arguments += [key for key in short if key.split("=")[0] not in own]
        if "-m" not in own:  # names are by the second, and these runs are shorter
            arguments.append(f"run.dir=outputs/{len(list(place.glob('outputs/*')))}")
        if source == "phantom":
            arguments += ["data.patients=30", "data.film_px=64"]
    monkeypatch.chdir(place)
    monkeypatch.delenv(IDENTITY, raising=False)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    entry.command("", name, *ENTRIES[name])


ENTRIES: dict[str, tuple[Any, ...]] = {
    "train": ("fluoroscope.train:main", "fluoroscope.config.train:check_run"),
    "evaluate": ("fluoroscope.evaluate:main", "fluoroscope.config.evaluate:check_evaluate"),
    "ablate": ("fluoroscope.ablation.ablate:main", "fluoroscope.config.ablate:check_study"),
    "report": (
        "fluoroscope.report:main",
        "fluoroscope.config.report:check_report",
    ),
    "dashboard": (
        "fluoroscope.tracking.dashboard:main",
        "fluoroscope.config.dashboard:check_dashboard",
    ),
    "prepare": (
        "fluoroscope.prepare.prepare_jobs:main",
        "fluoroscope.config.prepare:check_job",
    ),
    "export": ("fluoroscope.export.export:main", "fluoroscope.config.export:check_export"),
    "explain": (
        "fluoroscope.explanation.explain:main",
        "fluoroscope.config.explain:check_explain",
    ),
    "census": (
        "fluoroscope.network_census.story:main",
        "fluoroscope.config.census:check_census",
    ),
    "demo": ("fluoroscope.demo.story:main", "fluoroscope.config.demo:check_demo"),
    "predict": (
        "fluoroscope.prediction.predict:main",
        "fluoroscope.config.predict:check_predict",
    ),
}
BRIEF = {
    "ablate": ["seeds=1", "report=false", "activations=[relu,gelu]"],
}


def documented(script):
    return [c for c in commands(PAGES) if c.startswith(f"python scripts/{script}.py")]


def own_first(script):
    """The commands of the README, and for the night those of the other pages."""
    own = commands(README)
    return [c if c in own else pytest.param(c, marks=pytest.mark.whole) for c in documented(script)]


@pytest.mark.parametrize(
    "command", [c for c in documented("train") + documented("ablate") if c not in commands(README)]
)
def test_commands_are_taken_up_to_where_they_would_start(monkeypatch, place, command):
    started = []
    monkeypatch.setattr(entry, "_run", lambda name, *rest: started.append(name) or 0)
    run(monkeypatch, place, command)
    assert len(started) == 1


@pytest.mark.parametrize("command", own_first("train"))
def test_train_commands_run(monkeypatch, place, capsys, command):
    if "--help" in command:
        run(monkeypatch, place, command)
        assert "head:" in capsys.readouterr().out
        return
    command = command.replace("seed=1,2,3", "seed=1")  # more seeds show nothing more
    before = set(place.glob("outputs/**/result.json"))
    run(monkeypatch, place, command)
    finished = set(place.glob("outputs/**/result.json")) - before
    sweeps = [len(word.split(",")) for word in shlex.split(command) if "=[" not in word]
    sweeps += [int(trials) for trials in re.findall(r"n_trials=(\d+)", command)]
    assert len(finished) == math.prod(sweeps)
    (place / "run").unlink(missing_ok=True)
    (place / "run").symlink_to(finished.pop().parent)


@pytest.mark.parametrize("command", [c for c in documented("prepare") if "data=" in c])
def test_prepare_commands_run(monkeypatch, place, capsys, command):
    run(monkeypatch, place, command)
    written = (
        ["*-prepare/audit.html"] if "only" in command else ["prepared.json", "studies.parquet"]
    )
    root = place / ("outputs" if "only" in command else "data/nih14-512px")
    assert all(list(root.glob(name)) for name in written)
    assert "Audit of 120 images of 40 patients" in capsys.readouterr().out


@pytest.mark.parametrize("command", own_first("evaluate"))
def test_evaluate_commands_run(monkeypatch, place, command):
    run(
        monkeypatch,
        place,
        "python scripts/train.py data=nih14 data.root=DIR 'data.labels=[Pneumonia]'",
    )
    (place / "run").unlink(missing_ok=True)
    newest = max(place.glob("outputs/*/result.json"), key=lambda path: path.stat().st_mtime)
    (place / "run").symlink_to(newest.parent)
    run(monkeypatch, place, command)
    assert list(place.glob("outputs/*-evaluate/predictions/*.csv"))


@pytest.mark.whole
@pytest.mark.parametrize("command", documented("export"))
def test_export_commands_run(monkeypatch, place, trained_run, command):
    shutil.copytree(trained_run, place / "exported", dirs_exist_ok=True)
    run(monkeypatch, place, command.replace("outputs/RUN", "exported"))
    name = "model.pt2" if "format=torch" in command else "model.onnx"
    assert (place / f"exported/{name}.json").exists()
    assert not list(place.glob("outputs/*-export"))


@pytest.mark.parametrize("command", documented("explain"))
def test_explain_commands_are_taken_up_to_where_they_would_start(
    monkeypatch, place, trained_run, command
):
    started = []
    monkeypatch.setattr(entry, "_run", lambda name, *rest: started.append(name) or 0)
    (place / "film.dcm").touch()
    for name in ("first", "first2"):
        shutil.copytree(trained_run, place / "outputs" / name, dirs_exist_ok=True)
    run(monkeypatch, place, command.replace("outputs/RUN", "outputs/first"))
    assert started == ["explain"]


@pytest.mark.parametrize("command", documented("census"))
def test_census_commands_are_taken_up_to_where_they_would_start(
    monkeypatch, place, trained_run, films, command
):
    started = []
    monkeypatch.setattr(entry, "_run", lambda name, *rest: started.append(name) or 0)
    command = command.replace("outputs/RUN", str(trained_run)).replace("FILMS", str(films))
    with forgotten():
        monkeypatch.syspath_prepend(str(EXAMPLES))  # holds mypkg
        run(monkeypatch, place, command)
    assert started == ["census"]


@pytest.mark.parametrize("command", documented("demo"))
def test_demo_commands_are_taken_up_to_where_they_would_start(
    monkeypatch, place, trained_run, command
):
    started = []
    monkeypatch.setattr(entry, "_run", lambda name, *rest: started.append(name) or 0)
    run(monkeypatch, place, command.replace("outputs/RUN", str(trained_run)))
    assert started == ["demo"]


@pytest.mark.parametrize("command", own_first("predict"))
def test_predict_commands_run(monkeypatch, place, trained_run, films, command):
    shutil.copytree(trained_run, place / "outputs/predicted", dirs_exist_ok=True)
    shutil.copytree(films, place / "FILMS", dirs_exist_ok=True)
    film = next(films.rglob("*.png"))
    shutil.copy(film, place / "FILMS/film.dcm")  # told apart by its content
    (place / "films.csv").write_text(f"path\n{film}\n")
    run(monkeypatch, place, command.replace("outputs/RUN", "outputs/predicted"))
    out = place / command.partition("out=")[2].split()[0]
    assert out.stat().st_size > 0
    out.unlink()


@pytest.mark.parametrize("command", own_first("ablate"))
def test_ablate_commands_run(monkeypatch, place, command):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    before = set(place.glob("outputs/*"))
    run(monkeypatch, place, command)
    (folder,) = set(place.glob("outputs/*")) - before
    assert (folder / "heads").exists()


@pytest.mark.parametrize("command", documented("report"))
def test_report_commands_run(monkeypatch, place, command):
    studies = {
        "sweep": {"activations": ("relu", "gelu", "identity")},
        "remedies": {
            "activations": ("relu",),
            "settings": [{"run.remedy": name} for name in ("none", "revive")],
        },
    }
    name = "remedies" if "by=remedy" in command else "sweep"
    if not (place / name).exists():
        write_study(place / name, **studies[name])
    run(monkeypatch, place, command.replace("outputs/SWEEP", str(place / name)))
    assert list((place / name).glob("**/report.html"))


@pytest.mark.parametrize("command", documented("dashboard"))
def test_dashboard_commands_run(monkeypatch, place, capsys, command):
    run(monkeypatch, place, command.replace("--dry-run", "dry_run=true"))
    assert "Head units" in capsys.readouterr().out


# Pages on clusters, GPUs and networks, whose commands are composed and checked but not run.
ABROAD = ("airgapped", "cluster", "performance")
ELSEWHERE = "".join((ROOT / f"docs/{name}.md").read_text() for name in ABROAD)
CHECKS = {
    "train": "config.train:check_train",
    "prepare": "config.prepare:check_prepare",
    "sync": "config.sync:check_sync",
}


def composed_elsewhere():
    """Script and overrides of each command that starts one, by whatever it is started."""
    text = ELSEWHERE.replace("\\\n", " ")
    lines = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^([^`\n]*scripts/[^`\n]*)$", text, re.M)
    start = r"scripts/(?:slurm/)?(\w+)\.(?:py|sbatch) ([^`#|]+)"
    found = [re.search(start, line) for line in lines if "..." not in line]
    return sorted({(match[1], match[2].strip()) for match in found if match and match[1] in CHECKS})


@pytest.mark.parametrize(("script", "words"), composed_elsewhere())
def test_the_commands_of_other_pages_are_well_formed(monkeypatch, tmp_path, script, words):
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    words = words.replace("weights=NAME", "weights=efficientnet_b4")
    overrides = [word for word in shlex.split(words) if "=" in word]
    overrides = [o for o in overrides if not re.match("run.resume=|hydra.launcher", o)]
    one_each = [o if "[" in o else o.partition(",")[0] for o in overrides]
    module, function = CHECKS[script].split(":")
    check = getattr(importlib.import_module(f"fluoroscope.{module}"), function)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        check(compose(script, one_each), one_each)


def test_there_are_such_commands():
    scripts = [script for script, _ in composed_elsewhere()]
    assert {script: scripts.count(script) > 0 for script in CHECKS} == dict.fromkeys(CHECKS, True)
    assert len(scripts) >= 11


def test_the_scripts_enter_where_the_tests_do():
    for name, (target, *check) in ENTRIES.items():
        script = (ROOT / f"scripts/{name}.py").read_text()
        assert all(f'"{place}"' in script for place in [target, *check]), name


@pytest.mark.parametrize("command", [c for c in commands(PAGES) if c.startswith("make")])
def test_make_targets_exist(command):
    dry = ["make", "-n", *command.split()[1:]]
    done = subprocess.run(dry, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def keys_in_tables():
    cells = re.findall(r"`('?[a-z_]+(?:\.[a-z_]+)*=[^`]+)`", PAGES)
    return sorted({cell for cell in cells if "DIR" not in cell})


# Keys of other commands' own configurations.
OTHERS = {
    "census": ("model", "images", "films", "layers"),
    "evaluate": (
        "prevalence",
        "recalibrate",
        "subgroups",
        "against",
        "probes",
        "masks",
        "points",
        "scores",
    ),
    "export": ("format", "opset", "out", "card", "evaluation"),
    "demo": ("point", "host", "max_mib"),
    "explain": ("boxes", "baseline", "steps"),
    "predict": ("path_column", "strict"),
    "ablate": ("activations", "seeds", "grid", "features", "views", "memory_gib"),
    "report": (
        *("runs", "by", "incomplete", "wandb"),
        *("margin", "min_patients", "min_seeds", "blackout_share"),
    ),
}
# What they need, and what keeps the check of each short.
REQUIRED = {
    "census": ["model=timm/test_efficientnet", "backbone.weights=none", "images=."],
    "demo": [f"checkpoint={ROOT}/tests/pin/before/run"],
    "explain": [f"checkpoint={ROOT}/tests/pin/before/run"],
    "evaluate": [f"checkpoint={ROOT}/tests/pin/before/run", "data=phantom"],
    "export": [f"checkpoint={ROOT}/tests/pin/before/run"],
    "predict": [f"checkpoint={ROOT}/tests/pin/before/run", "images=.", "out=p.csv"],
    "report": ["runs=."],
    "ablate": ["activations=[relu]", "seeds=1", "backbone=lite0"],
}


def check_of(name):
    module, function = ENTRIES[name][1].split(":")
    return getattr(importlib.import_module(module), function)


@pytest.mark.parametrize("cell", keys_in_tables())
def test_the_keys_of_the_tables_are_there(cell):
    overrides = [command_line.spell_out(word) for word in shlex.split(cell)]
    if "hydra.sweeper.s" in cell:
        overrides.append("hydra/sweeper=optuna")
    if "revive_by" in cell:
        overrides.append("diagnostics.revive_every_n_epochs=1")
    key = cell.strip("'").partition("=")[0]
    for name, own in OTHERS.items():
        if key.partition(".")[0] in own:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                check_of(name)(compose(name, [*REQUIRED.get(name, []), *overrides]))
            return
    several = "data.root=[" in cell
    source = [] if cell.startswith("data=") else ["data=prepared" if several else "data=phantom"]
    resumed = "run.resume" in cell
    config(*source, *([] if resumed else overrides))
    assert not resumed or hasattr(config(*source).run, "resume")


def test_links_lead_somewhere_and_the_page_is_short():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 10
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "data/README.md",
        *("docs/experiments.md", "docs/extend.md"),
        *(f"docs/{n}.md" for n in DOCS + ABROAD),
    ],
)
def test_prose_fits_the_eye(page):
    """Lines of prose; tables, code, links and pictures cannot be broken."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    prose = [line for line in text.splitlines() if not re.match(r"\||!\[|#|\s*\S+$", line)]
    assert [line for line in prose if len(line) > 100] == []
