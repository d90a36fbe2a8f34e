"""The sparse decoder against a dense masked one written from Table 7, and what every model must do."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as fn

from qgn.data.batch import LabelBatch
from qgn.errors import TrainingError
from qgn.losses import QuadtreeLoss, criterion_of
from qgn.models.build import MODEL_NAMES, build_model
from qgn.models.decoder import UpUnit
from quadcodec.pyramid import COMPOSITE

from .helpers import VOID, blobs, plain_tree

torch.set_num_threads(1)
CLASSES = 3


def batch_of_two(seed=5):
    rng = np.random.default_rng(seed)
    trees = [plain_tree(blobs(rng, *size, CLASSES, count=5)) for size in ((64, 64), (40, 90))]
    return trees, LabelBatch.from_trees(trees), torch.from_numpy(rng.normal(size=(2, 3, 64, 96)))


def double_model(name="qgn_resnet18", width=4, variants=()):
    """Return a model in float64 that calls about half of its cells composite, with uneven norm layers."""
    torch.manual_seed(0)
    model = build_model(name, CLASSES, width=width, variants=variants).double()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.5)
    for head in model.decoder.heads:
        head.bias.data[0] += 0.5
    return model


class DenseMasked:
    """The decoder on dense grids: masks before every convolution, statistics over masked cells only."""

    def __init__(self, decoder, scheme, composite_b1hw=None):
        self.decoder, self.scheme, self.truth = decoder, scheme, composite_b1hw

    def norm(self, x, mask, module):
        count = mask.sum()
        mean = (x * mask).sum((0, 2, 3)) / count
        centred = (x - mean[:, None, None]) * mask
        variance = (centred**2).sum((0, 2, 3)) / count
        with torch.no_grad():
            module.running_mean.lerp_(mean, 0.1)
            module.running_var.lerp_(variance * count / (count - 1), 0.1)
            module.num_batches_tracked += 1
        scale = module.weight / (variance + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + module.bias[:, None, None]

    def project(self, x, mask, module):
        return self.norm(fn.conv2d(x, module.conv.weight[:, :, None, None]), mask, module.bn)

    def unit(self, x, mask, unit):
        y = fn.conv2d(x * mask, unit.conv1.weight, padding=1)
        y = fn.relu(self.norm(y, mask, unit.bn1))
        y = self.norm(fn.conv2d(y * mask, unit.conv2.weight, padding=1), mask, unit.bn2)
        return fn.relu(y + (x if unit.shortcut is None else self.project(x, mask, unit.shortcut)))

    def up_unit(self, x, mask, unit):
        y = fn.relu(self.norm(fn.conv2d(x * mask, unit.conv1.weight, padding=1), mask, unit.bn1)) * mask
        y = fn.conv_transpose2d(y, unit.conv2.weight, stride=2, padding=1, output_padding=1)
        weight = unit.shortcut.conv.weight.view(2, 2, -1, x.shape[1]).permute(3, 2, 0, 1)
        shortcut = self.norm(fn.conv_transpose2d(x, weight, stride=2), up(mask), unit.shortcut.bn)
        return fn.relu(self.norm(y, up(mask), unit.bn2) + shortcut)

    def active(self, level, logits, visited):
        if self.scheme == "all":
            return torch.ones_like(visited)
        if self.scheme == "gtc":
            return self.truth[level]
        predicted = (logits.argmax(1, keepdim=True) == 0) * visited
        return predicted if self.scheme == "pc" else torch.maximum(predicted, self.truth[level] * visited)

    def __call__(self, features):
        """Return dense logits and masks of visited and active cells, of levels 0, 1, ..."""
        x, out = None, {}
        visited = torch.ones_like(features[-1][:, :1])
        for place, level in enumerate((5, 4, 3, 2, 1)):
            skip, head = self.decoder.skips[place], self.decoder.heads[place]
            source = features[level - 1]
            if x is not None:
                x = x if x.shape[2:] == source.shape[2:] else up(x)
                if not self.decoder.pre_skip:
                    x = x + fn.relu(self.project(source, visited, skip))
            logits = fn.conv2d(source if x is None else x, head.weight[:, :, None, None], head.bias)
            active = self.active(level, logits, visited)
            if x is None or self.decoder.pre_skip:
                x = fn.relu(self.project(source, active, skip)) + (0 if x is None else x)
            out[level] = logits, visited, active
            for unit in self.decoder.blocks[place].units:
                x = (self.up_unit if isinstance(unit, UpUnit) else self.unit)(x, active, unit)
            visited = up(active)
            x = x * (active if x.shape[2:] == active.shape[2:] else visited)
        head = self.decoder.pixel_head
        weight = head.weight.view(2, 2, CLASSES + 1, -1).permute(3, 2, 0, 1)
        bias = head.bias.view(2, 2, CLASSES + 1).permute(2, 0, 1)
        logits = fn.conv_transpose2d(x, weight, stride=2) + bias.tile(1, *x.shape[2:])
        return [(logits, visited, torch.zeros_like(visited)), *(out[level] for level in (1, 2, 3, 4, 5))]


def up(x):
    return fn.interpolate(x, scale_factor=2, mode="nearest")


def true_composites(trees):
    """Return the dense composite mask of each level over the batch's canvas."""
    masks = []
    for level in range(6):
        rows, cols = (max(tree.pyramid[level].shape[axis] for tree in trees) for axis in (0, 1))
        mask = torch.zeros(len(trees), 1, rows, cols, dtype=torch.float64)
        for image, tree in enumerate(trees):
            cells = torch.from_numpy(tree.pyramid[level] == COMPOSITE)
            mask[image, 0, : cells.shape[0], : cells.shape[1]] = cells
        masks.append(mask)
    return masks


REDNET = ("convt", "pre_skip", "stem64")
"""With every cell carried on, the RGB half of RedNet."""


@pytest.mark.parametrize(
    ("variants", "recompute"),
    [((), False), ((), True), (("convt",), False), (("pre_skip",), False), (REDNET, False), (REDNET, True)],
)
@pytest.mark.parametrize("scheme", ["gtc", "all", "pc", "union"])
def test_sparse_equals_dense_masked(scheme, variants, recompute):
    trees, labels, images = batch_of_two()
    sparse = double_model(variants=variants)
    dense = deepcopy(sparse)
    sparse.decoder.recompute = recompute
    features = [[maps.detach().requires_grad_() for maps in model.encoder(images)] for model in (sparse, dense)]
    prediction = sparse.decoder(features[0], labels, scheme)
    expected = DenseMasked(dense.decoder, scheme, true_composites(trees))(features[1])
    losses, silent = [0.0, 0.0], 0
    for level, (mine, (logits, visited, active)) in enumerate(zip(prediction.levels, expected, strict=True)):
        image, y, x = mine.nodes.positions()
        assert len(mine.nodes) == int(visited.sum())
        assert bool(visited[image, 0, y, x].all())
        wanted = logits[image, :, y, x]
        torch.testing.assert_close(mine.logits_nk, wanted, rtol=1e-9, atol=1e-9)
        if level:
            assert torch.equal(active[image, 0, y, x].nonzero().squeeze(1), mine.sites.node_m)
            assert 2 <= len(mine.sites) <= len(mine.nodes)
            silent += len(mine.nodes) - len(mine.sites)
        upstream = torch.randn(wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(level))
        losses = [losses[0] + (mine.logits_nk * upstream).sum(), losses[1] + (wanted * upstream).sum()]
    assert (silent == 0) == (scheme == "all")
    for loss in losses:
        loss.backward()
    names, mine = zip(*sparse.decoder.named_parameters(), strict=True)
    pairs = zip((*mine, *features[0]), (*dense.decoder.parameters(), *features[1]), strict=True)
    for name, (mine, theirs) in zip((*names, *(f"features {i}" for i in range(5))), pairs, strict=True):
        assert theirs.grad.abs().max() > 0, name
        scale = theirs.grad.abs().max()
        torch.testing.assert_close(
            mine.grad / scale, theirs.grad / scale, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    buffers = dict(dense.named_buffers())
    for name, mine in sparse.named_buffers():
        torch.testing.assert_close(mine, buffers[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("scheme", ["all", "pc"])
def test_labels_do_not_change_what_is_predicted_without_them(scheme):
    _, labels, images = batch_of_two()
    model = double_model().eval()
    with torch.no_grad():
        with_labels, without = model(images, labels, scheme), model(images, propagation=scheme)
    for mine, theirs in zip(with_labels.logits, without.logits, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(with_labels.to_pixels(), without.to_pixels())
    with pytest.raises(ValueError, match="without labels"):
        _ = without.targets


class Oracle(torch.nn.Module):
    """Stand in for a prediction layer: say the truth, and class 0 where there is none."""

    def __init__(self, targets, pixels=False):
        super().__init__()
        self.logits = fn.one_hot(targets.where(targets >= 0, 1), CLASSES + 1).double()
        self.pixels = pixels

    def forward(self, x):
        logits = self.logits.view(-1, 4 * (CLASSES + 1)) if self.pixels else self.logits
        assert len(logits) == len(x)
        return logits


def test_pc_equals_gtc_when_the_logits_are_the_truth():
    trees, labels, images = batch_of_two()
    model = double_model()
    *heads, last = (labels.level(level).long() for level in range(5, -1, -1))
    model.decoder.heads = torch.nn.ModuleList(Oracle(targets) for targets in heads)
    states = []
    for scheme in ("gtc", "pc"):
        again = deepcopy(model)
        prediction = again(images, labels, scheme)
        states.append((prediction, again.state_dict()))
    (gtc, gtc_state), (pc, pc_state) = states
    assert gtc.active_sites == pc.active_sites
    assert min(gtc.active_sites[1:]) > 0
    for mine, theirs in zip((*gtc.logits, *gtc.targets), (*pc.logits, *pc.targets), strict=True):
        assert torch.equal(mine, theirs)
    assert all(torch.equal(gtc_state[name], pc_state[name]) for name in gtc_state)
    model.decoder.pixel_head = Oracle(last, pixels=True)
    pixels = model(images, labels, "pc").to_pixels()
    assert pixels.shape == (2, 64, 96)
    for image, tree in enumerate(trees):
        mask = torch.from_numpy(tree.pyramid[0][: tree.height, : tree.width])
        known = mask != VOID
        assert torch.equal(pixels[image, : tree.height, : tree.width][known], mask[known].long())


def test_to_pixels_equals_a_walk_down_the_tree():
    _, _, images = batch_of_two()
    with torch.no_grad():
        prediction = double_model()(images, propagation="pc")
    best, split = {}, set()
    for level, at in enumerate(prediction.levels):
        for node, cell in enumerate(zip(*(part.tolist() for part in at.nodes.positions()), strict=True)):
            best[(level, *cell)] = max(range(CLASSES), key=lambda c, row=at.logits_nk[node]: row[c + 1].item())
            if at.sites is not None and node in at.sites.node_m:
                split.add((level, *cell))
    pixels = prediction.to_pixels()
    leaf_levels = set()
    for image, y, x in np.ndindex(2, 64, 96):
        level = 5
        while (level, image, y >> level, x >> level) in split:
            level -= 1
        leaf_levels.add(level)
        assert pixels[image, y, x] == best[(level, image, y >> level, x >> level)]
    assert len(leaf_levels) == 6


def one_site_mask():
    """Return a mask whose tree has exactly one composite cell at each level."""
    mask = np.zeros((32, 64), int)
    mask[0, 0] = 1
    return mask


CORNERS = {
    "nothing composite": (np.zeros((32, 64), int), [0, 0, 0, 0, 0, 0]),
    "all void": (np.full((32, 64), VOID), [0, 0, 0, 0, 0, 0]),
    "one composite cell a level": (one_site_mask(), [0, 1, 1, 1, 1, 1]),
    "everything composite": (np.indices((32, 64)).sum(0) % 2, [0, 512, 128, 32, 8, 2]),
}


@pytest.mark.parametrize("corner", CORNERS)
def test_corner_cases_train(corner):
    mask, sites = CORNERS[corner]
    labels = LabelBatch.from_trees([plain_tree(mask)])
    torch.manual_seed(0)
    model, loss = build_model("qgn_resnet18", 2, width=4), QuadtreeLoss()
    images = torch.randn(1, 3, 32, 64)
    prediction = model(images, labels, "gtc")
    assert list(prediction.active_sites) == sites
    total, per_level, _ = loss(prediction.logits, prediction.targets)
    total.backward()
    assert total.isfinite()
    assert all(level == 0 for level, target in zip(per_level, prediction.targets, strict=True) if not len(target))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert prediction.to_pixels().shape == (1, 32, 64)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_model_runs_forward_and_backward(name):
    torch.manual_seed(0)
    model = build_model(name, CLASSES, width=4)
    labels = LabelBatch.from_trees([plain_tree(blobs(np.random.default_rng(1), 64, 64, CLASSES))])
    images = torch.randn(1, 3, 64, 64)
    for scheme in model.schemes:
        model.zero_grad()
        prediction = model(images, labels, scheme)
        criterion_of(model)(prediction.logits, prediction.targets).total.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        pixels = model.eval()(images).to_pixels()
    assert pixels.shape == (1, 64, 64)
    assert pixels.dtype == torch.int64
    assert 0 <= pixels.min() <= pixels.max() < CLASSES


def train(steps, scheme="gtc", seed=0):
    _, labels, images = batch_of_two()
    torch.manual_seed(seed)
    model, loss = build_model("qgn_resnet18", CLASSES, width=8), QuadtreeLoss("fixed")
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    history = []
    for _ in range(steps):
        prediction = model(images.float(), labels, scheme)
        total = loss(prediction.logits, prediction.targets).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    return history


@pytest.mark.parametrize("scheme", ["gtc", "all"])
def test_loss_falls_on_one_batch(scheme):
    history = train(12, scheme)
    assert history[-1] < 0.75 * history[0]


def test_same_seed_gives_the_same_loss():
    assert train(3) == train(3)
    assert train(1, seed=1) != train(1)


def loss_and_gradients(decoder, forward, dtype):
    """Return the loss of a batch and all gradients in one vector; forward returns logits and targets."""
    decoder = deepcopy(decoder)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits, targets = forward(decoder)
    loss = QuadtreeLoss()([level.float() for level in logits], targets).total
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in decoder.parameters()])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_as_a_dense_decoder_does(dtype):
    trees, labels, images = batch_of_two()
    model = double_model(width=8).float()
    features = [maps.detach() for maps in model.encoder(images.float())]

    def sparse(decoder):
        prediction = decoder(features, labels, "gtc")
        return prediction.logits, prediction.targets

    def dense(decoder):
        nodes = [level.nodes for level in model.decoder(features, labels, "gtc").levels]
        levels = DenseMasked(decoder, "gtc", [mask.float() for mask in true_composites(trees)])(features)
        at = [nodes_of.positions() for nodes_of in nodes]
        logits = [grid[image, :, y, x] for (grid, _, _), (image, y, x) in zip(levels, at, strict=True)]
        return logits, [nodes_of.target_n for nodes_of in nodes]

    loss, grads = loss_and_gradients(model.decoder, sparse, torch.float32)
    errors = []
    for forward in (sparse, dense):
        half_loss, half_grads = loss_and_gradients(model.decoder, forward, dtype)
        assert abs(half_loss - loss) < 1e-3 * loss
        errors.append((half_grads - grads).norm())
    assert errors[0] < 3 * errors[1]


def test_decoder_of_the_paper_has_its_parameter_count():
    with torch.device("meta"):
        model = build_model("qgn_resnet50", 19)
    count = sum(parameter.numel() for parameter in model.decoder.parameters())
    assert 34.4e6 <= count <= 35.0e6
    assert sum(len(block.units) for block in model.decoder.blocks) == 19
    channels = [(b.units[0].conv1.weight.shape[1], b.units[-1].conv2.weight.shape[0]) for b in model.decoder.blocks]
    assert channels == [(512, 256), (256, 128), (128, 64), (64, 64), (64, 64)]


def test_variants_and_pooling_have_the_parameters_of_the_reference_code():
    def counts(name, variants=()):
        with torch.device("meta"):
            model = build_model(name, 19, variants=variants)
        return [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder)]

    encoder, decoder = counts("qgn_resnet50")
    # The last units of four blocks: a 2x2 shortcut where there was a 1x1 one, and where there was none.
    extra = 3 * (512 * 256 + 256 * 128 + 128 * 64) + 4 * 64 * 64 + 2 * 64
    assert counts("qgn_resnet50", ("convt",)) == [encoder, decoder + extra]
    assert 34.9e6 < decoder + extra < 35.0e6
    assert counts("qgn_resnet50", ("pre_skip",)) == [encoder, decoder]
    # 64 channels less in the stem: in its last convolution and normalisation, and in what reads them.
    stem = 64 * 64 * 9 + 2 * 64 + 64 * 64 + 64 * 256
    assert counts("qgn_resnet50", ("stem64",)) == [encoder - stem, decoder - 64 * 64]
    pooling = 4 * (2048 * 256 + 2 * 256) + (2048 + 4 * 256) * 2048 + 2048
    assert counts("qgn_resnet50_ppm") == [encoder, decoder + pooling]


def test_pooling_lets_every_cell_see_the_whole_image():
    torch.manual_seed(0)
    model = build_model("qgn_resnet18_ppm", CLASSES, width=4)
    *_, last = model.encoder(torch.randn(1, 3, 224, 256))
    seen = last.detach().requires_grad_()
    context = model.decoder.context.eval()
    context(seen)[0, :, 0, 0].sum().backward()
    assert (seen.grad != 0).any(1).all()
    assert context(seen).is_contiguous(memory_format=torch.channels_last)


def test_one_image_is_enough_to_train_pooling():
    """The average over the whole image is one value a channel: no batch statistics."""
    torch.manual_seed(0)
    context = build_model("qgn_resnet18_ppm", CLASSES, width=4).decoder.context
    norm = context[0].branches[0][1][1]
    before = norm.running_mean.clone()
    assert context(torch.randn(1, 32, 2, 3)).isfinite().all()
    assert torch.equal(norm.running_mean, before)
    context(torch.randn(2, 32, 2, 3))
    assert not torch.equal(norm.running_mean, before)


def test_encoder_has_timms_names_and_shapes():
    with torch.device("meta"):
        state = {k: tuple(v.shape) for k, v in build_model("qgn_resnet50", 19).encoder.state_dict().items()}
        basic = {k: tuple(v.shape) for k, v in build_model("qgn_resnet34", 19).encoder.state_dict().items()}
    expected = {
        "conv1.0.weight": (64, 3, 3, 3),
        "conv1.1.running_var": (64,),
        "conv1.3.weight": (64, 64, 3, 3),
        "conv1.4.bias": (64,),
        "conv1.6.weight": (128, 64, 3, 3),
        "bn1.weight": (128,),
        "layer1.0.conv1.weight": (64, 128, 1, 1),
        "layer1.0.downsample.0.weight": (256, 128, 1, 1),
        "layer1.0.downsample.1.running_mean": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.weight": (1024,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
    }
    assert expected.items() <= state.items()
    assert len(state) == 330
    assert basic["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert not any(".conv3." in name for name in basic)


def test_features_have_five_strides():
    model = build_model("qgn_resnet18", CLASSES, width=4)
    features = model.encoder(torch.randn(1, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (1, c, 64 // s, 96 // s) for s, c in zip((2, 4, 8, 16, 32), model.encoder.channels, strict=True)
    ]
    assert model.encoder.channels == (8, 4, 8, 16, 32)


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match=r"resnet20'.*qgn_resnet18, qgn_resnet34, qgn_resnet50, qgn_resnet101"):
        build_model("qgn_resnet20", CLASSES)
    with pytest.raises(ValueError, match="at least 1"):
        build_model("qgn_resnet18", 0)
    model = build_model("qgn_resnet18", CLASSES, width=1).eval()
    with pytest.raises(ValueError, match="48x64: pad"):
        model(torch.zeros(1, 3, 48, 64))
    with pytest.raises(TrainingError, match="'onion': no such rule, expected one of all, gtc, pc"):
        model(torch.zeros(1, 3, 32, 32), propagation="onion")
    with pytest.raises(TrainingError, match="there are no labels"):
        model(torch.zeros(1, 3, 32, 32), propagation="gtc")
    with pytest.raises(ValueError, match="coarsest grid"):
        model(torch.zeros(2, 3, 32, 32), LabelBatch.from_trees([plain_tree(np.zeros((64, 64), int))] * 2), "gtc")
