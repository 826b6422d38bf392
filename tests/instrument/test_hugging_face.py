"""UnitCallback in a Trainer of Transformers; nothing is downloaded."""

import sys

import pytest
import torch

from fluoroscope.errors import InputError

transformers = pytest.importorskip("transformers")


def trainer(folder, arguments=None, **keys):
    torch.manual_seed(3)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=30, intermediate_size=20, **sizes)
    model = transformers.BertForSequenceClassification(config)
    torch.manual_seed(5)
    rows = [{"input_ids": torch.randint(0, 30, (9,)), "labels": i % 2} for i in range(14)]
    args = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        eval_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        **(arguments or {}),
    )
    return transformers.Trainer(model, args, train_dataset=rows, eval_dataset=rows[:6], **keys)


ACT = "bert.encoder.layer.0.intermediate.intermediate_act_fn"


def test_a_trainer_logs_the_units_and_trains_as_without(tmp_path):
    from fluoroscope.instrument.hugging_face import UnitCallback

    watched = trainer(tmp_path / "a")
    units = UnitCallback(every_n_steps=2).attach(watched)
    watched.train()
    plain = trainer(tmp_path / "b")
    plain.train()
    for a, b in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)
    logged = [row for row in watched.state.log_history if f"units/train/{ACT}/dead_frac" in row]
    assert [row["epoch"] for row in logged] == [1, 2]
    evaluated = [row for row in watched.state.log_history if f"units/eval/{ACT}/dead_frac" in row]
    assert len(evaluated) == 2
    assert evaluated[-1].items() - {("step", 8)} <= units.values.items() | {("epoch", 2.0)}
    watched.model.eval()
    z = []
    dense = watched.model.bert.encoder.layer[0].intermediate.dense
    handle = dense.register_forward_hook(lambda m, i, o: z.append(o.detach()))
    with torch.no_grad():
        watched.model(input_ids=torch.stack([row["input_ids"] for row in watched.eval_dataset]))
    handle.remove()
    (z,) = z
    slope = torch.special.ndtr(z) + z * torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
    share = float((slope.abs() > 1e-6).double().mean())
    assert evaluated[-1][f"units/eval/{ACT}/gate_open_frac"] == pytest.approx(share, abs=1e-6)
    modules = watched.model.modules()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


@pytest.mark.whole
def test_a_compiled_training_is_counted(tmp_path):
    from fluoroscope.instrument.hugging_face import UnitCallback

    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}
    found = []
    for name, arguments in (("plain", {}), ("compiled", compiled)):
        training = trainer(tmp_path / name, arguments)
        units = UnitCallback(every_n_steps=2).attach(training)
        training.train()
        found.append(units.values)
        assert torch._dynamo.eval_frame._stance.stance == "default"
    assert len(found[0]) > 20
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.whole
def test_a_layer_that_no_call_reaches_is_warned_of_once_per_window(tmp_path):
    from fluoroscope.instrument.hugging_face import UnitCallback

    with pytest.warns(UserWarning, match="UnitCallback: no call of .* reached a layer") as said:
        trainer(tmp_path, callbacks=[UnitCallback("bert.pooler/relu")]).train()
    assert len([w for w in said if "UnitCallback" in str(w.message)]) == 2


def test_bad_keys_are_refused_before_the_training():
    from fluoroscope.instrument.hugging_face import UnitCallback

    with pytest.raises(InputError, match="every_n_steps must be a whole number of at least 1"):
        UnitCallback(every_n_steps=0)


@pytest.mark.whole
def test_in_the_list_of_callbacks_it_only_counts(tmp_path):
    from fluoroscope.instrument.hugging_face import UnitCallback

    units = UnitCallback("*pooler*")
    trainer(tmp_path, callbacks=[units]).train()
    keys = {key.rpartition("/")[0] for key in units.values}
    assert keys == {"units/train", "units/train/bert.pooler.activation"} | {
        "units/eval/bert.pooler.activation"
    }


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "fluoroscope.instrument.hugging_face", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'fluoroscope\[transformers\]'"):
        import fluoroscope.instrument.hugging_face  # noqa: F401
