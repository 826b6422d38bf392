"""The package that pip installs: what it holds, and that it needs no clone."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from fluoroscope.commands import names

ROOT = Path(__file__).parents[1]
SHORT = [
    *("data.patients=30", "data.film_px=64", "data.image_px=48", "data.num_workers=0"),
    "data.batch_size=8",
    *("backbone.name=test_efficientnet", "backbone.weights=none", "head.width=31"),
    *("trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=csv", "run.progress=quiet"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as pip builds it, but without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


def tracked(*folders):
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    done = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)
    return {line for line in done.stdout.splitlines() if (ROOT / line).exists()}


def test_the_wheel_holds_the_package_with_its_configuration_and_its_scripts(wheel):
    packed = zipfile.ZipFile(wheel)
    files = {name for name in packed.namelist() if ".dist-info/" not in name}
    clone = {f"src/{name}": name for name in files if (ROOT / "src" / name).exists()}
    clone |= {
        name.removeprefix("fluoroscope/"): name for name in files if name not in clone.values()
    }
    assert clone.keys() == tracked("src", "conf", "scripts")
    for here, there in clone.items():
        assert packed.read(there) == (ROOT / here).read_bytes()
    (points,) = [name for name in packed.namelist() if name.endswith("entry_points.txt")]
    assert b"fluoroscope = fluoroscope.command.program:main" in packed.read(points)


@pytest.fixture(scope="module")
def program(wheel, tmp_path_factory):
    """Call `fluoroscope` in a new environment: these libraries, but of ours only the wheel."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place / "env", with_pip=False)
    python = place / "env/bin/python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps"]
    subprocess.run([*install, "--python", str(python), str(wheel)], check=True)
    paths = {"base": str(place / "env"), "platbase": str(place / "env")}
    own = Path(sysconfig.get_path("purelib", vars=paths))
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def call(*words, launcher=(), cwd=place):
        first = [*launcher, "-m", "fluoroscope"] if launcher else [place / "env/bin/fluoroscope"]
        start = [str(python), *first] if launcher else first
        done = subprocess.run(
            [*start, *words], cwd=cwd, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "scripts/" not in done.stdout.replace("scripts/slurm", "")
        return done.stdout

    def shell(line, cwd):
        path = {"PATH": f"{place / 'env/bin'}:{os.environ['PATH']}"}
        subprocess.run(line, shell=True, cwd=cwd, env=environ | path, check=True)

    call.place, call.shell = place, shell
    return call


@pytest.mark.whole
def test_the_installed_program_trains_evaluates_and_reports(program):
    place = program.place
    assert all(f"\n  {name} " in program("--help") for name in names())
    out = program("train", "experiment=quickstart", *SHORT, "run.dir=run")
    assert "blackout" in out
    program("train", "run.resume=run", "trainer.max_epochs=2")
    steps = json.loads((place / "run/result.json").read_text())
    assert steps["epochs"] == 2
    program("evaluate", "checkpoint=run", "run.dir=evaluation")
    assert (place / "evaluation/evaluation.html").is_file()
    program("report", "runs=run", "out=report")
    assert (place / "report/report.html").is_file()


@pytest.mark.whole
def test_its_sweeps_and_its_processes_start_without_a_clone(program):
    place = program.place
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    out = program("train", "-m", *SHORT, "seed=1,2", *two, "hydra.sweep.dir=sweep")
    assert "compare  fluoroscope report runs=sweep" in out
    assert len(list(place.glob("sweep/*/result.json"))) == 2
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program("train", *SHORT, *two, "run.dir=torchrun", launcher=torchrun)
    assert (place / "torchrun/result.json").is_file()
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]
    program("train", "-m", *SHORT, "seed=1,2", *launcher, "hydra.sweep.dir=jobs")
    assert len(list(place.glob("jobs/*/result.json"))) == 2


@pytest.mark.whole
def test_the_project_of_the_page_runs(program, films):
    """docs/extend.md: own experiments and own code, in a folder of their own."""
    page = (ROOT / "docs/extend.md").read_text().partition("## Your own project beside")[2]
    project, ward = program.place / "myproject", program.place / "ward"
    shutil.copytree(films, ward)
    for text in re.findall(r"```yaml\n(.*?)```", page.partition("\n## ")[0], re.DOTALL):
        file = project / re.search(r"# (conf/\S+)", text)[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("/data/ward", str(ward)))
    shutil.copytree(ROOT / "docs/examples/mypkg", project / "myproject")
    names = [path.relative_to(ward) for path in sorted(ward.rglob("*.png"))]
    rows = [f"{name},{name.name[:4]},{int('BLOB' in name.parts)}" for name in names]
    (ward / "studies.csv").write_text("\n".join(["path,who,Pneumonia", *rows]))
    (block, copy) = re.findall(r"```bash\n(.*?)```", page.partition("\n## ")[0], re.DOTALL)
    for line in block.replace("seed=1,2,3", "seed=1").splitlines():
        words = shlex.split(line)[1:]
        folder = "hydra.sweep.dir=outputs/SWEEP" if "-m" in words else "run.dir=outputs/RUN"
        program(*words, *([*SHORT[2:], folder] if words[0] == "train" else []), cwd=project)
    assert len(list(project.glob("outputs/SWEEP/*/result.json"))) == 2
    assert list(project.glob("outputs/SWEEP/**/report.html"))
    assert list(project.glob("outputs/*-evaluate/evaluation.html"))
    program.shell(copy, cwd=project)
    assert (project / "train.sbatch").read_text().startswith("#!/usr/bin/env bash")
