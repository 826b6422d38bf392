"""Maps by closed forms, on any of timm's networks, and without traces in the network."""

import numpy as np
import pytest
import timm
import torch

from fluoroscope.errors import InputError
from fluoroscope.explanation.map_layer import (
    Differentiable,
    as_map,
    find_map_layer,
    form_of,
    with_map,
)
from fluoroscope.explanation.maps import grad_cam, integrated_gradients
from fluoroscope.explanation.randomised import with_random_weights
from fluoroscope.model.backbone import make_backbone
from fluoroscope.model.head import Head
from fluoroscope.trained.loading import Network

S, K = 96, 3


def network(name="test_resnet", px=S, activation="relu", **args):
    torch.manual_seed(0)
    backbone = make_backbone(name, "none", frozen=True, args=args)
    head = Head(backbone.num_features, K, width=19, norm="layer", activation=activation)
    return Network(backbone, head).eval().requires_grad_(False)


def film(px=S, seed=0):
    return torch.randint(
        0, 256, (1, 1, px, px), generator=torch.Generator().manual_seed(seed)
    ).byte()


# One of each form: channels first and last, tokens with and without others, class token only.
NETWORKS = {
    "test_efficientnet": {},
    "test_resnet": {},
    "test_mambaout": {},
    "test_vit": {"img_size": S},
    "test_vit2": {"img_size": S},
    "test_vit3": {"img_size": S},
}
LARGE = (
    *("densenet121", "vgg11", "swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224"),
    *("cait_xxs24_224", "xcit_nano_12_p16_224", "mvitv2_tiny", "coat_lite_tiny", "volo_d1_224"),
    *("mixer_s32_224", "poolformer_s12", "efficientformer_l1", "levit_128s"),
    *("mobilenetv3_small_050", "repvit_m0_9", "twins_svt_small", "hrnet_w18_small", "nest_tiny"),
    *("tf_efficientnet_lite0", "tf_efficientnet_b4", "vit_tiny_patch16_224", "maxvit_pico_rw_256"),
    *("resnet18", "convnext_atto", "regnetx_002"),
)


def check_maps(net, px):
    """The tap changes no logit, and the map depends on every place of the layer."""
    layer = find_map_layer(net, px)
    explained, image = Differentiable(net, layer), film(px)
    torch.testing.assert_close(explained(image.float()), net(image), rtol=1e-4, atol=1e-4)
    heats = [grad_cam(explained, image, label).heat for label in range(K)]
    net.head.out.weight.neg_()  # what lowers a logit now raises it
    heats += [grad_cam(explained, image, label).heat for label in range(K)]
    assert all(heat.shape == (px, px) and (heat >= 0).all() for heat in heats)
    assert any(np.ptp(heat) > 0 for heat in heats)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_form_of_network_has_a_map(name):
    check_maps(network(name, **NETWORKS[name]), S)


@pytest.mark.whole
@pytest.mark.parametrize("name", LARGE)
def test_networks_of_many_families_have_a_map(name):
    px = timm.get_pretrained_cfg(name).input_size[-1]
    net, generator = network(name, px), torch.Generator().manual_seed(1)
    for weight in net.backbone.parameters():
        if weight.ndim == 1:  # some families begin with residuals of zero, and a constant map
            weight.add_(0.5 * torch.rand(weight.shape, generator=generator))
    check_maps(net, px)


def test_a_network_without_a_map_is_refused():
    net = network("crossvit_tiny_240")
    with pytest.raises(InputError, match="none is known of backbone CrossVit; use methods="):
        find_map_layer(net, 240)


@pytest.mark.parametrize(
    "shape", [(2, 7, 4, 4), (2, 4, 4, 7), (2, 16, 7), (2, 17, 7), (2, 21, 7), (2, 4, 4, 4)]
)
def test_a_map_returns_to_its_own_form(shape):
    out = torch.randn(shape)
    form = form_of(out)
    places = as_map(out, form)
    assert places.shape[2:] == (4, 4)
    assert torch.equal(with_map(out, places, form), out)


def test_places_of_tokens_are_rows_of_the_image():
    """A token per patch, row by row, as in timm's patch embedding."""
    tokens = torch.arange(12.0)[None, :, None]  # three others, then 3 x 3 places
    places = as_map(tokens, form_of(tokens))
    assert places[0, 0].tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_grad_cam_is_the_class_activation_map_behind_a_linear_head():
    """By hand: with average pooling and a linear head it is ReLU(sum_c w_c A_c) / (h w)."""
    net = network(activation="identity")
    net.head.norm = torch.nn.Identity()
    image = film()
    maps = net.backbone.network.forward_features(net.backbone.normalise(image))[0]
    weight = (net.head.out.weight @ net.head.dense.weight).detach()
    for label in range(K):
        expected = torch.einsum("c,chw->hw", weight[label], maps).clamp_min(0)
        expected = expected / maps[0].numel()
        large = torch.nn.functional.interpolate(
            expected[None, None], (S, S), mode="bilinear", align_corners=False
        )
        heat = grad_cam(Differentiable(net), image, label).heat
        np.testing.assert_allclose(heat, large[0, 0].detach(), rtol=1e-3, atol=1e-7)


def test_integrated_gradients_add_up_to_the_logit():
    """Captum's error shrinks with the steps, and `error` is what is missing."""
    net = network("test_efficientnet", activation="gelu")
    explained, image = Differentiable(net), film()
    logits = {
        "mean": net(image.float().mean().expand(image.shape)),
        "black": net(torch.zeros_like(image)),
    }
    for baseline, start in logits.items():
        made = float(net(image)[0, 1] - start[0, 1])
        found = integrated_gradients(explained, image, 1, steps=64, baseline=baseline)
        assert found.explained == pytest.approx(made, rel=1e-3, abs=1e-4)
        assert abs(found.error) < 0.05 * abs(made) + 1e-4


class Linear(torch.nn.Module):
    """A backbone whose features are weighted sums of the pixels."""

    def __init__(self, weight):
        super().__init__()
        self.backbone = self.head = torch.nn.Identity()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, image):
        return torch.einsum("bcij,kij->bk", image, self.weight)


def test_integrated_gradients_of_a_linear_model_are_known():
    """It is weight x (pixel - baseline); its positive part, smoothed, keeps its sum."""
    weight = torch.zeros(2, S, S)
    weight[1, 40:44, 60:64] = 2.0  # dark in the film
    weight[1, 10:14, 20:24] = -1.0
    image = torch.full((1, 1, S, S), 100, dtype=torch.uint8)
    image[0, 0, 40:44, 60:64], image[0, 0, 10:14, 20:24] = 180, 20
    made = integrated_gradients(Linear(weight), image, 1, baseline="black")
    assert np.unravel_index(made.heat.argmax(), made.heat.shape)[0] in range(40, 44)
    assert made.heat.sum() == pytest.approx(2 * 180 * 16, rel=1e-3)
    assert made.error == pytest.approx(0, abs=0.1)
    of_mean = integrated_gradients(Linear(weight), image, 1, baseline="mean").heat
    mean = float(image.float().mean())
    expected = 2 * (180 - mean) * 16 + (mean - 20) * 16  # darkness where the weight is negative
    assert of_mean.sum() == pytest.approx(expected, rel=1e-3)
    assert integrated_gradients(Linear(weight), image, 0, baseline="mean").heat.sum() == 0


def test_an_explanation_leaves_the_network_as_it_was():
    net, image = network("test_vit", img_size=S), film()
    before, logits = {k: v.clone() for k, v in net.state_dict().items()}, net(image)
    explained = Differentiable(net, find_map_layer(net, S))
    grad_cam(explained, image, 0)
    integrated_gradients(explained, image, 0, steps=4)
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net(image), logits)
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())


def test_random_weights_keep_the_values_and_lose_what_was_learnt():
    net, image = network(), film()
    random = with_random_weights(net, seed=3)
    for name, tensor in net.state_dict().items():
        other = random.state_dict()[name]
        assert torch.equal(tensor.flatten().sort().values, other.flatten().sort().values)
    assert not torch.equal(random(image), net(image))
    assert torch.equal(with_random_weights(net, seed=3)(image), random(image))
