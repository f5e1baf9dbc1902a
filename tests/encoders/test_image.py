"""Image encoders: the laws, batches, what is extracted, saved and refused; timm where it can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from nestling.cut import RAW, CutRule, cut
from nestling.encoders.image import ImageEncoder
from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError, MissingExtraError
from nestling.granularity import Granularity, Nesting
from nestling.losses import CrossEntropy, InfoNCE, Nested
from nestling.nn.heads import NestedClassifier
from nestling.testing import check_elastic

NESTING = Nesting.parse("dim=2,4,8,16")
SHAPE = (1, 8, 8)


class Net(nn.Module):
    """A small convolutional network that ends in a Linear."""

    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8 * 16, width)

    def forward(self, x):
        return self.fc(nn.functional.max_pool2d(self.stem(x), 2).flatten(1))


def net(seed=0, width=16):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(width)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return torch.tensor(data.images[:, None] / 16, dtype=torch.float32), torch.tensor(data.target)


def encoder(rule=RAW, last="fc", nesting=NESTING):
    return ImageEncoder(net(), nesting, rule, input_shape=SHAPE, last=last)


@pytest.mark.parametrize("last", ["fc", None])
@pytest.mark.parametrize("rule", [RAW, CutRule(), CutRule("layer_norm", "l2")], ids=str)
def test_image_encoders_keep_the_laws(rule, last, digits):
    check_elastic(
        encoder(rule, last),
        digits[0][:6],
        load=lambda folder: ImageEncoder.load(folder, backbone=net(seed=1)),
    )


def test_features_are_cuts_of_those_of_the_backbone(digits):
    pictures = digits[0][:10]
    whole = net().eval()(pictures)
    for g in NESTING:
        expected = cut(whole, g["dim"], CutRule())
        torch.testing.assert_close(encoder(CutRule())(pictures, at=g), expected)


def test_views_are_features_before_the_cut_and_train_as_such(digits):
    pictures, thing = digits[0][:10], encoder(CutRule())
    views = thing.views(pictures, NESTING.rests)
    torch.testing.assert_close(views[Granularity()], net().eval()(pictures))
    with pytest.raises(GranularityError, match="has no axis layer"):
        thing.views(pictures, [Granularity(layer=1)])
    loss = Nested(InfoNCE(), NESTING)
    torch.testing.assert_close(loss(views, views), loss(views[Granularity()], views[Granularity()]))


def test_encode_is_the_same_in_batches_and_leaves_no_trace(digits, capfd):
    pictures = digits[0]
    thing = encoder().train()
    thing.backbone.stem.eval()
    modes = [module.training for module in thing.modules()]
    statistics = thing.backbone.stem[1].running_mean.clone()
    found = thing.encode(pictures, at=8, batch_size=500)
    assert found.shape == (1797, 8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, thing.encode(pictures.numpy(), at=8, batch_size=7), atol=1e-5)
    np.testing.assert_allclose(found[:5], thing.encode(list(pictures[:5]), at=8), atol=1e-5)
    assert [module.training for module in thing.modules()] == modes
    torch.testing.assert_close(thing.backbone.stem[1].running_mean, statistics, rtol=0, atol=0)
    assert capfd.readouterr() == ("", "")


def test_memory_maps_are_read_batch_by_batch(digits, tmp_path):
    np.save(tmp_path / "pictures.npy", digits[0].numpy())
    mapped = np.load(tmp_path / "pictures.npy", mmap_mode="c")
    np.testing.assert_allclose(encoder().encode(mapped), encoder().encode(digits[0]), atol=1e-6)


def test_cost_counts_convolutions_and_the_last_linear():
    cost = encoder().cost(4)
    assert cost.flops == 8 * 9 * 64 + 8 * 16 * 16
    assert cost.output_bytes == 16
    small = encoder().extract(4).cost()
    assert cost.flops - small.flops == 12 * 8 * 16
    assert cost.parameters - small.parameters == 12 * (8 * 16 + 1)


def test_a_backbone_without_weights_is_one_too(digits):
    pixels = ImageEncoder(nn.Flatten(), Nesting.parse("dim=8,64"), input_shape=SHAPE)
    np.testing.assert_array_equal(pixels.encode(digits[0], at=8), digits[0].flatten(1)[:, :8].numpy())
    assert pixels.cost(8).parameters == 0


def test_what_is_extracted_shares_nothing(digits):
    whole = encoder()
    small = whole.extract(4)
    expected = whole(digits[0][:3], at=4)
    for weight in small.parameters():
        weight.data.zero_()
    torch.testing.assert_close(whole(digits[0][:3], at=4), expected, rtol=0, atol=0)


def test_a_backbone_that_is_one_linear():
    encoder = ImageEncoder(nn.Linear(4, 8), Nesting.parse("dim=2,8"), input_shape=(4,), last="")
    pictures = torch.ones(3, 4)
    small = encoder.extract(2)
    assert small.backbone.weight.shape == (2, 4)
    torch.testing.assert_close(small(pictures), encoder(pictures, at=2))


def test_trained_with_a_nested_loss_small_features_classify(digits):
    """Reached are about 0.92 and 0.85; chance is 0.1."""
    pictures, labels = digits
    torch.manual_seed(0)
    thing, head = encoder().train(), NestedClassifier(NESTING, 10)
    loss = Nested(CrossEntropy(head), NESTING)
    optimiser = torch.optim.AdamW([*thing.parameters(), *head.parameters()], lr=3e-3)
    for epoch in range(12):
        for rows in torch.randperm(1400, generator=torch.Generator().manual_seed(epoch)).split(100):
            optimiser.zero_grad()
            loss(thing(pictures[rows]), labels=labels[rows]).backward()
            optimiser.step()
    features = torch.from_numpy(thing.encode(pictures[1400:]))
    accuracy = {
        g["dim"]: (head(features, at=g).argmax(1) == labels[1400:]).float().mean().item() for g in NESTING
    }
    assert accuracy[16] > 0.85
    assert accuracy[4] > 0.6


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(1, 8, 8), r"\[batch, 1, 8, 8\], not \(1, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8), r"not \(2, 3, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "must be floats"),
        (torch.zeros(0, 1, 8, 8), "no pictures"),
        (torch.full((2, 1, 8, 8), torch.nan), r"NaN or infinity in 2 rows \(0, 1\)"),
    ],
)
def test_pictures_that_cannot_be_encoded_are_refused(pictures, message):
    with pytest.raises(DataError, match=message):
        encoder().encode(pictures)


def test_nestings_and_backbones_that_do_not_fit_are_refused(digits):
    with pytest.raises(GranularityError, match="16 dims"):
        encoder(nesting=Nesting.parse("dim=8,32"))
    with pytest.raises(GranularityError, match="16 dims"):
        encoder(nesting=Nesting.parse("dim=8,32"), last=None)(digits[0][:2])
    with pytest.raises(GranularityError, match="the axis dim, not layer"):
        encoder(nesting=Nesting.parse("layer=1,2"))
    with pytest.raises(ConfigError, match="did you mean 'fc'"):
        encoder(last="fcc")
    with pytest.raises(DataError, match="pool and flatten"):
        ImageEncoder(nn.Conv2d(1, 4, 3), Nesting.parse("dim=4"), input_shape=SHAPE)(digits[0][:2])
    with pytest.raises(ConfigError, match="batch_size"):
        encoder().encode(digits[0], batch_size=0)


def test_a_saved_encoder_says_what_it_needs(tmp_path):
    encoder().save(tmp_path / "e")
    with pytest.raises(ConfigError, match="backbone="):
        ImageEncoder.load(tmp_path / "e")
    with pytest.raises(ArtifactError, match="gives 8 dims, but 16 are needed"):
        ImageEncoder.load(tmp_path / "e", backbone=net(width=8))
    encoder(last=None).save(tmp_path / "e")
    for other in (net(width=8), net().stem):
        with pytest.raises(ArtifactError, match="do not fit this backbone"):
            ImageEncoder.load(tmp_path / "e", backbone=other)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"nestling\[vision\]"):
        ImageEncoder.from_timm("resnet18", NESTING)


WITH_TIMM = """
import os, sys
folder = os.environ.get("NESTLING_TIMM")
if folder:  # timm beside a torchvision that was built for another torch: its operators are only declared
    import torch
    sys.path.append(folder)
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
try:
    import timm
except Exception as error:
    print(f"timm cannot be imported: {error}")
    sys.exit(77)

import tempfile
import torch
from nestling.encoders.image import ImageEncoder
from nestling.errors import ConfigError
from nestling.granularity import Granularity, Nesting
from nestling.testing import check_elastic

pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
nesting = Nesting.parse("dim=64,512")
plain = ImageEncoder.from_timm("resnet18", nesting, pretrained=False)
assert plain.input_shape == (3, 224, 224), plain.input_shape
assert abs(plain.cost().flops - 1.8e9) < 0.1e9, plain.cost()  # the figure everybody gives for it
small = ImageEncoder.from_timm("resnet18", nesting, input_shape=(3, 64, 64), pretrained=False)
check_elastic(small, pictures, tolerance=1e-4)
vit = ImageEncoder.from_timm(
    "vit_tiny_patch16_224", Nesting.parse("dim=8,32"), input_shape=(3, 64, 64), last="head",
    pretrained=False, num_classes=32, img_size=64,
)
check_elastic(vit, pictures, tolerance=1e-4)
assert vit.extract(8).backbone.head.weight.shape == (8, 192)
with tempfile.TemporaryDirectory() as folder:
    vit.extract(8).save(folder + "/small")
    loaded = ImageEncoder.load(folder + "/small")
    torch.testing.assert_close(loaded(pictures), vit(pictures, at=8), atol=1e-5, rtol=1e-4)
try:
    ImageEncoder.from_timm("resnet81", nesting)
except ConfigError as error:
    assert "resnet18" in str(error), error
else:
    raise AssertionError("an unknown name was accepted")
"""


def test_models_of_timm_are_encoders(tmp_path):
    """In a process of its own: an installed torchvision that does not fit this torch breaks others.

    ``NESTLING_TIMM`` may name a folder made by
    ``pip install --no-deps --target FOLDER timm torchvision`` where torchvision itself does not fit.
    """
    script = Path(tmp_path / "with_timm.py")
    script.write_text(WITH_TIMM)
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if run.returncode == 77:
        pytest.skip(f"{run.stdout.strip()}; set NESTLING_TIMM or install nestling[vision]")
    assert run.returncode == 0, run.stderr
