"""Small networks of every kind, in float64, with units that are dead, linear and neither."""

import timm
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


def mlp():
    layers = (nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 5), nn.Tanh(), nn.Linear(5, 3))
    model = nn.Sequential(*layers)
    plant(model[0].bias)
    return model, {"1": ("relu", 1), "3": ("tanh", 1)}, (7,)


def cnn():
    model = nn.Sequential(
        *(nn.Conv2d(2, 11, 3), nn.BatchNorm2d(11), nn.ReLU(inplace=True)),
        *(nn.Conv2d(11, 5, 3, stride=2), nn.SiLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)),
    )
    plant(model[1].bias)
    return model, {"2": ("relu", 1), "4": ("silu", 1)}, (2, 17, 13)


def vit():
    size = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", **size, num_classes=3)
    plant(model.blocks[1].mlp.fc1.bias, 30.0)
    acts = {f"blocks.{block}.mlp.act": ("gelu", 2) for block in (0, 1)}
    return model, acts, (3, 16, 16)


def resnet():
    """A ReLU that works in place, called twice per block, the second time on a sum."""
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)
    plant(model.bn1.bias)
    plant(model.layer1[0].bn1.bias)
    acts = dict.fromkeys(("relu", *(f"layer{i}.0.relu" for i in (1, 2, 3, 4))), ("relu", 1))
    return model, acts, (3, 33, 37)


def bert():
    transformers = __import__("pytest").importorskip("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=30, intermediate_size=20, **sizes)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = transformers.BertModel(config)
    plant(model.encoder.layer[0].intermediate.dense.bias, 30.0)
    acts = {f"encoder.layer.{i}.intermediate.intermediate_act_fn": ("gelu", 2) for i in (0, 1)} | {
        "pooler.activation": ("tanh", 1)
    }
    return model, acts, None


NETWORKS = {f.__name__: f for f in (mlp, cnn, vit, resnet, bert)}


def plant(bias, size=100.0):
    """Two units are shut, three never bend."""
    with torch.no_grad():
        bias[:2], bias[2:5] = -size, size


def make(name, dtype=torch.float64):
    """The network, its activations (kind, dimension of the channels) by name, and a data source."""
    torch.manual_seed(3)
    model, acts, shape = NETWORKS[name]()

    def batch(size):
        if shape is None:
            return torch.randint(0, 30, (size, 9))
        return torch.randn(size, *shape, dtype=dtype)

    return model.to(dtype), acts, batch


def output(model, x):
    found = model(x)
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def fit(model, batch, sizes=(6, 4, 5), evaluated=(7, 2), lr=0.01):
    """Three steps of training, and an evaluation."""
    torch.manual_seed(8)
    optimizer = torch.optim.SGD(model.parameters(), lr)
    model.train()
    for size in sizes:
        optimizer.zero_grad()
        output(model, batch(size)).square().sum().backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        for size in evaluated:
            output(model, batch(size))
    return model
