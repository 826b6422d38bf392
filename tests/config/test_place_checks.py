"""What needs no PyTorch to be refused is refused without it, before the first run of a sweep."""

import json
import os

import pytest

from fluoroscope.config.place_checks import check_exists
from fluoroscope.errors import InputError
from tests.command.test_entry import HEAVY, SCRIPTS, record

LITE = "backbone=lite0 logger=csv"
FILE = f"{LITE} backbone.weights=file backbone.file"
NIH = f"{LITE} data=nih14 data.root=/no/such"
TRAIN = [
    (f"{LITE} -m head.activation=relu,gleu", "head.activation must be one of"),
    ("-m data.fold=1/5,6/5", "data.fold must be k/n with k from 1 to n"),
    (f"-m {NIH} loss.label_smoothing=0,1", "loss.label_smoothing must be in [0, 1); got 1"),
    ("data.val_frac=0", "data.val_frac must be in (0, 1); got 0"),
    ("data.test_frac=1", "data.test_frac must be in (0, 1); got 1"),
    ("head.bias_init=True", "head.bias_init must be a finite number, null or centered; got true"),
    ("trainer.limit_val_batches=1.5", "a share in (0, 1], or null; got 1.5"),
    ("trainer.max_epochs=-1", "trainer.max_epochs must be at least 1; got -1"),
    ("optimizer.lr=nan", "optimizer.lr must be at least 0; got NaN"),
    ("optimizer.backbone_lr=inf", "optimizer.backbone_lr must be a finite number"),
    ("backbone.name=efficientnet_b44", "did you mean 'efficientnet_b4'?"),
    ("backbone.name=resnet18.a1_in2k", "did you mean 'resnet18.a1_in1k'?"),
    (NIH, "data.root: there is no directory /no/such"),
    (f"-m {NIH} seed=1,2", "data.root: there is no directory /no/such"),
    (f"{LITE} data=folder data.root=file.txt", "there is no directory {cwd}/file.txt"),
    (f"{LITE} data=table data.root=. data.csv=no.csv", "data.csv: there is no file {cwd}/no.csv"),
    (f"{LITE} data=table data.root=. data.csv=file.txt data.label_key=a", "needs data.label_csv"),
    (f"{LITE} data=prepared data.root=.", "is not a copy made by fluoroscope"),
    (f"{LITE} data=prepared data.root=[half,.]", "the copy in {cwd}/half is not finished"),
    (f"{FILE}=/no.pth", "backbone.file: there is no file /no.pth"),
    (f"{FILE}={{cwd}}", "backbone.file: {cwd} is a folder; give a file"),
    (f"-m {FILE}=/no.pth seed=1,2", "backbone.file: there is no file /no.pth"),
    (f"{LITE} backbone.weights=file", "backbone.weights=file needs backbone.file=PATH"),
    (f"{LITE} backbone.weights=package backbone.name=resnet18", "package exists only for"),
    ("run.resume=/no/such", "run.resume: /no/such holds no run"),
    (f"{LITE} -m run.resume=auto seed=1,2", "run.resume=auto with -m needs the same folder in"),
    (f"{LITE} run.dir=run", "run already holds a run; continue it with run.resume=run"),
    (f"{LITE} -m run.estimate=true seed=1,2", "run.estimate=true measures one run in one process"),
    (f"{LITE} run.estimate=true trainer=ddp", "measures one run in one process; set trainer.dev"),
    ("trainer.precision=fp8", "trainer.precision must be one of"),
    ("trainer.accelerator=gppu", "did you mean 'gpu'?"),
    ("trainer.strategy=fsdp", "trainer.strategy must be one of auto, ddp"),
    ("data.batch_size=1.5", "data.batch_size must be a whole number; got 1.5"),
    ("data.augment=[{name:Affinee}]", "did you mean 'Affine'?"),
]
OTHERS = [
    ("ablate", "-m seed=1,2", "-m is not available for an ablation"),
    ("ablate", "'activations=[relu,gleu]'", "did you mean 'gelu'?"),
    ("ablate", NIH, "data.root: there is no directory /no/such"),
    ("ablate", f"{FILE}=/no.pth", "backbone.file: there is no file /no.pth"),
    ("ablate", "grid.optimizer.lr=[1e-3,nan]", "optimizer.lr must be at least 0; got NaN"),
    ("evaluate", "checkpoint=no.ckpt", "there is no checkpoint no.ckpt"),
    ("evaluate", "-m checkpoint=no.ckpt,file.txt", "there is no checkpoint no.ckpt"),
    ("evaluate", "checkpoint=file.txt", "file.txt is not a checkpoint of fluoroscope"),
    ("evaluate", "checkpoint=[a,./a]", "checkpoint lists a more than once"),
    ("evaluate", "checkpoint=[]", "checkpoint must be a run folder or a checkpoint, or a list"),
    ("evaluate", "checkpoint=x recalibrate=0.2", "recalibrate fits the calibration again on anoth"),
    ("evaluate", "checkpoint=x points=[youdn]", "there is no operating point 'youdn'; use youden"),
    ("evaluate", "checkpoint=x points=[sensitivity_100]", "no operating point 'sensitivity_100'"),
    ("evaluate", "checkpoint=x points=[]", "points must list different operating points; got []"),
    ("evaluate", "checkpoint=x points=[youden,youden]", "points must list different operating poi"),
    ("evaluate", "checkpoint=x prevalence=1", "prevalence must be in (0, 1)"),
    ("evaluate", "checkpoint=x split=all", "split=all would score the training images too"),
    ("evaluate", "checkpoint=x probes=true masks=no", "masks: there is no directory no"),
    ("evaluate", "checkpoint=[x,y] probes=true", "probes=true looks at one model"),
    ("evaluate", "checkpoint=x masks=.", "masks=. is only read with probes=true"),
    ("evaluate", "checkpoint=x data=nih14 data.root=/no", "there is no directory /no"),
    ("evaluate", "checkpoint=x data.root=/no/such", "there is no directory /no/such"),
    ("evaluate", "checkpoint=x run.dir=run", "run already holds a run; give another run.dir"),
    ("predict", "checkpoint=no.ckpt images=. out=p.csv", "there is no checkpoint no.ckpt"),
    ("predict", "checkpoint=run images=. out=p.csv", "run is not the folder of a trained run"),
    ("demo", "port=0", "checkpoint is not set; add checkpoint=RUN"),
    ("demo", "checkpoint=no.ckpt", "there is no checkpoint no.ckpt"),
    ("demo", "checkpoint=run", "run is not the folder of a trained run"),
    ("predict", "images=/no out=p.csv", "checkpoint is not set; add checkpoint=RUN"),
    ("prepare", "data=nih14 data.root=/no/such", "data.root: there is no directory /no/such"),
    ("prepare", "data=nih14 data.root=/no audit=only", "data.root: there is no directory /no"),
    ("prepare", "weights=efficientnet_b4.foo", "did you mean 'efficientnet_b4.ra2_in1k'?"),
    ("report", "runs=/no/such", "runs: there is no folder /no/such"),
    ("sync", "runs=[run,/no/such]", "runs: there is no folder /no/such"),
    ("dashboard", "group_by=head.activatoin", "did you mean 'head.activation'?"),
]
CASES = [*(("train", *case) for case in TRAIN), *OTHERS]
QUICK = [case for case in CASES if "/no" in case[1] or "no.c" in case[1] or "gleu" in case[1]]


@pytest.fixture
def cwd(tmp_path):
    (tmp_path / "file.txt").write_text("a,b\n1,2\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 1\n")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/prepared.json").write_text(json.dumps({"finished": False}))
    return tmp_path


@pytest.mark.parametrize("cases", [QUICK, pytest.param(CASES, marks=pytest.mark.whole)], ids=len)
def test_refusals_that_need_no_library_import_none(cwd, cases):
    """One process for all cases: a library that one case imports is still there in the next."""
    before = sorted(cwd.rglob("*"))
    lines = [(SCRIPTS / f"{script}.py", *words.split()) for script, words, _ in cases]
    lines = [[str(word).strip("'") for word in line] for line in lines]
    for (script, words, told), (code, out, err, roots) in zip(
        cases, record(cwd, *lines), strict=True
    ):
        assert told.format(cwd=cwd) in err, (script, words)
        assert (code, out, err.count("\n")) == (2, "", 1), (script, words)
        assert not set(HEAVY) & set(roots), (script, words)
    assert sorted(cwd.rglob("*")) == before


def test_a_pipe_without_a_writer_is_refused_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"boxes: .*/pipe is a pipe or a device; give"):
        check_exists("boxes", tmp_path / "pipe")
    with pytest.raises(InputError, match="boxes: there is no file or folder"):
        check_exists("boxes", tmp_path / "no")
    check_exists("boxes", tmp_path)
