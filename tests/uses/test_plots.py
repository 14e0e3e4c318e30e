"""`wspace plot`: landscapes, Grad-CAM, the map of weights and accuracy along denoising; and the page that shows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor, nn

import wspace as package
from wspace.components.backbones.pixels import Pixels
from wspace.components.backbones.timm import TimmBackbone
from wspace.data.encoders.frozen import as_maps
from wspace.interfaces import Layers, Target
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.learning.fitting import losses
from wspace.support.errors import MissingPackage, UserError
from wspace.support.progress import Bar
from wspace.support.seeding import stream
from wspace.uses.attention import Headed, attention, find_layer, maps_of
from wspace.uses.cam import correlations
from wspace.uses.landscape import Cost, Images, Landscape, Plane, filter_normalised, landscapes
from wspace.uses.shown import generated, task_shown, trained
from wspace.uses.space import components

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(nano):
    return package.load(nano)


@pytest.fixture(scope="module")
def plotted(nano, inside) -> Path:
    """The nano run with all four pictures in its report."""
    for arguments in (["trajectory"], ["landscape", "--grid", 5], ["cam", "--images", 3, "--steps", 2], ["space"]):
        done = inside("plot", nano, *arguments)
        assert done.returncode == 0, done.stderr
    return nano


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


# ---------------------------------------------------------------- landscape: directions


class Kernels(Target):
    """Tensors of every shape there is; inputs first or outputs first."""

    spec = WeightSpec(
        (
            WeightEntry("kernel", (3, 2, 2, 2), ("out", "in", "2", "2")),
            WeightEntry("matrix", (4, 3), ("last", "out")),
            WeightEntry("bias", (4,), ("last",)),
            WeightEntry("mean", (3,), ("out",)),
        )
    )
    statistics = ("mean",)

    def __init__(self, outputs: int):
        self.outputs = outputs  # type: ignore[misc]

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randn(count, self.spec.size, generator=rng)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("outputs", [0, 1])
def test_directions_are_normalised_filter_by_filter(outputs: int) -> None:
    target, rng = Kernels(outputs), stream(0, "test")
    centre, drawn = target.init(1, rng)[0], target.init(2, rng)
    made = target.spec.unflatten(filter_normalised(target, drawn, centre))
    own, before = target.spec.unflatten(centre), target.spec.unflatten(drawn)
    for n in range(2):
        for name in ("kernel", "matrix"):
            for unit in range(own[name].shape[outputs]):
                d, w = before[name][n].select(outputs, unit), own[name].select(outputs, unit)
                torch.testing.assert_close(made[name][n].select(outputs, unit), d / d.norm() * w.norm())
        d = before["bias"][n]
        torch.testing.assert_close(made["bias"][n], d / d.norm() * own["bias"].norm())
    assert not made["mean"].any()


def test_a_filter_of_zeros_stays() -> None:
    target = Kernels(0)
    made = filter_normalised(target, target.init(2, stream(0, "test")), torch.zeros(target.spec.size))
    assert torch.equal(made, torch.zeros(2, target.spec.size))


# ---------------------------------------------------------------- landscape: losses


@pytest.fixture
def small(run, tmp_path) -> Landscape:
    """Five by five points around a generated head, three networks a batch."""
    task = task_shown(run, None)
    images = Images(*run.bench.test.of_task(task), run.bench.class_texts[list(task)])
    plane = Plane.around(run.target, generated(run, task, 0), 5, 1.0, stream(0, "test"))
    return Landscape(run.target, plane, images, tmp_path, at_once=3 * images.features.numel())


def test_the_middle_is_the_networks_own_loss_and_the_others_are_their_networks(run, small) -> None:
    task, plane = task_shown(run, None), small.plane
    found = small.compute(Bar("test", 25))
    assert found.shape == (5, 5)

    def loss(network: Tensor) -> float:
        return float(losses(run.target, network[None], [task], run.bench.test, run.bench.class_texts)[0])

    assert found[2, 2] == pytest.approx(loss(generated(run, task, 0)), rel=1e-5)
    assert plane.axis.tolist() == [-1, -0.5, 0, 0.5, 1]
    first, second = plane.directions
    assert found[0, 3] == pytest.approx(loss(plane.centre - first + 0.5 * second), rel=1e-4)
    assert found[4, 1] == pytest.approx(loss(plane.centre + first - 0.5 * second), rel=1e-4)
    assert found.std() > 0.01


def test_a_killed_grid_goes_on_and_keeps_every_point(small) -> None:
    whole = small.compute(Bar("test", 25))
    small.file.unlink()
    batches = 0

    def kill() -> None:
        nonlocal batches
        batches += 1
        if batches == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small.compute(Bar("test", 25), kill)
    assert len(small.stored()) == 12

    known: list[int] = []  # points on disk after each batch
    bar = Bar("test", 25)
    torch.testing.assert_close(small.compute(bar, lambda: known.append(len(small.stored()))), whole)
    assert known == [15, 18, 21, 24, 25] and (bar.done, bar.resumed) == (25, 12)
    torch.testing.assert_close(small.compute(Bar("test", 25), lambda: pytest.fail("there was nothing to do")), whole)


def test_a_truncated_file_of_losses_is_made_anew(small) -> None:
    whole = small.compute(Bar("test", 25))
    small.file.write_bytes(small.file.read_bytes()[:-20])
    torch.testing.assert_close(small.compute(Bar("test", 25)), whole)


def test_another_head_grid_or_task_has_a_file_of_its_own(run, small, tmp_path) -> None:
    plane, images = small.plane, small.images
    others = [
        Landscape(run.target, Plane(plane.centre + 1e-3, plane.directions, plane.axis), images, tmp_path),
        Landscape(run.target, Plane(plane.centre, plane.directions, 2 * plane.axis), images, tmp_path),
        Landscape(run.target, plane, Images(images.features, images.labels.flip(0), images.texts), tmp_path),
    ]
    assert len({small.file, *(other.file for other in others)}) == 4


def test_no_weight_is_changed(nano, run) -> None:
    before = {file: file.stat().st_mtime_ns for file in nano.rglob("*.safetensors")}
    heads = landscapes(run, grid=3)
    centres = {name: head.plane.centre.clone() for name, head in heads.items()}
    for head in heads.values():
        head.compute(Bar("test", 9))
    assert all(torch.equal(head.plane.centre, centres[name]) for name, head in heads.items())
    task = task_shown(run, None)
    assert torch.equal(centres["generated"], generated(run, task, 0))
    assert torch.equal(centres["trained"], trained(run, task, 0))
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_dry_says_how_many_points_and_how_long(nano, inside) -> None:
    done = inside("plot", nano, "landscape", "--grid", 7, "--seed", 3, "--dry")
    assert re.fullmatch(r"98 points would take about \d+ s here\n", done.stdout)
    told = json.loads(inside("plot", nano, "landscape", "--grid", 7, "--seed", 3, "--dry", "--json").stdout)
    assert (told["points"], told["known"]) == (98, 0) and told["seconds"] > 0
    assert str(Cost(882, 0, 95.4)) == "882 points would take about 95 s here"
    assert str(Cost(12_482, 1_000, 4_000)) == "12,482 points, 1,000 of them known already, would take about 67 min here"


def test_a_grid_of_hours_is_refused_unless_it_is_wanted(nano, inside, monkeypatch) -> None:
    monkeypatch.setattr(Landscape, "seconds", lambda self: 3 * 3600.0)
    for dry in ([], ["--dry"]):
        assert refused(inside("plot", nano, "landscape", "--grid", 2001, *dry)) == (
            "8,008,002 points would take about 6 h here: take a smaller --grid, or add --long; a killed one goes on where "
            "it was"
        )
    assert inside("plot", nano, "landscape", "--grid", 2001, "--dry", "--long").returncode == 0


def test_landscape_is_a_section_of_two_figures(plotted) -> None:
    section = json.loads((plotted / "uses/plot-landscape.json").read_text())
    assert [figure["name"] for figure in section["figures"]] == ["surface", "contour"]
    assert re.fullmatch(
        r"generated: loss \d\.\d{3} in the middle, \d+\.\d{3} on the mean of the rim; the lowest of the grid, "
        r"\d\.\d{3}, is (in the middle|at \(\S+, \S+\))\.",
        section["says"][0],
    )
    for name in ("surface", "contour"):
        with Image.open(plotted / f"uses/plot-landscape-{name}.png") as picture:
            assert picture.width == 1260


# ---------------------------------------------------------------- cam


class Tiny(nn.Module):
    """A convolution, and the mean of what it finds: small enough to be differentiated by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1, bias=True)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x)).mean((2, 3))


class Linear(Target):
    """logits = features @ weights."""

    def __init__(self, features: int, classes: int):
        self.spec = WeightSpec((WeightEntry("w", (features, classes), ("in", "out")),))

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randn(count, self.spec.size, generator=rng)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        return features @ self.spec.unflatten(weights)["w"]


def layers_of(network: nn.Module) -> Layers:
    frozen = network.eval().requires_grad_(False)
    return Layers(frozen, frozen, lambda pixels: torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, as_maps)


@pytest.mark.parametrize("layer", ["conv", "relu"])
def test_maps_are_those_worked_out_by_hand(layer: str) -> None:
    pytest.importorskip("pytorch_grad_cam")
    rng = stream(0, "test")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Tiny()
    target, x = Linear(5, 4), torch.rand(6, 3, 8, 8, generator=rng)
    weights, labels, rms = target.init(1, rng)[0], torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor(2.0)
    made = maps_of(Headed(layers_of(network), target, weights, rms, torch.zeros(4, 1)), layer, x, labels)

    with torch.no_grad():
        before = network.conv(x)  # (M, 5, 8, 8)
    per_feature = weights.view(5, 4)[:, labels].T / rms  # (M, 5), of the score by each mean
    slope = per_feature[:, :, None, None] / 64  # by each place behind the ReLU, the same in all
    passed = torch.ones_like(before) if layer == "relu" else (before > 0).float()
    importance = (slope * passed).mean((2, 3), keepdim=True)  # Selvaraju et al., eq. 1
    values = before.clamp_min(0) if layer == "relu" else before
    heat = (importance * values).sum(1).clamp_min(0)  # eq. 2
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    assert (heat.flatten(1).std(dim=1) > 0).sum() >= 4
    np.testing.assert_allclose(made, ((heat - low) / (high - low + 1e-7)).numpy(), atol=2e-3)
    assert all(not p.requires_grad and p.grad is None for p in network.parameters())


def test_where_a_network_looks_in_a_users_pictures(run, tmp_path: Path) -> None:
    pytest.importorskip("pytorch_grad_cam")
    files = [tmp_path / "left.png", tmp_path / "right.png"]
    for file, at in zip(files, (0, 40), strict=True):
        picture = np.full((64, 64, 3), 255, np.uint8)
        picture[20:44, at : at + 24] = 0
        Image.fromarray(picture).save(file)
    classes = [run.zoo.classes[number] for number in run.zoo.tasks.classes[:4]]
    seen = attention(run, run.generate(classes), files)
    assert [(one.pixels.shape, one.map.shape) for one in seen] == [((64, 64, 3), (64, 64))] * 2
    assert all(one.map.min() >= 0 and one.map.max() <= 1 for one in seen)
    assert not np.array_equal(seen[0].map, seen[1].map)


def test_without_the_package_it_is_said_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_grad_cam", None)
    with pytest.raises(MissingPackage) as told:
        maps_of(None, "conv", torch.zeros(1, 3, 8, 8), torch.zeros(1))  # type: ignore[arg-type]
    assert str(told.value) == 'Grad-CAM needs the package grad-cam: pip install "wspace[plots]"'


@pytest.fixture(scope="module")
def resnet() -> TimmBackbone:
    return TimmBackbone("test_resnet", pretrained=False, precision="float32", device=CPU)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_layers_of_a_timm_backbone(model: str) -> None:
    pytest.importorskip("pytorch_grad_cam")
    backbone = TimmBackbone(model, pretrained=False, precision="float32", device=CPU)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    layers = backbone.layers()
    torch.testing.assert_close(layers.features(layers.prepare(pixels)), backbone.encode(pixels), rtol=1e-3, atol=1e-4)
    layer = find_layer(layers, pixels[:1], None)
    assert layer in layers.stages
    target, one = Linear(backbone.dim, 2), torch.randn(backbone.dim, 1, generator=stream(0, "test"))
    opposed = torch.cat([one, -one], dim=1).flatten()  # what speaks against a class speaks for the other
    headed = Headed(layers, target, opposed, torch.tensor(1.0), torch.zeros(2, 1))
    heat = maps_of(headed, layer, layers.prepare(pixels[[0, 0]]), torch.tensor([0, 1]))
    assert heat.shape == (2, 160, 160) and heat.min() >= 0 and heat.max() <= 1 and heat.std() > 0


def test_the_default_layer_is_the_last_one_of_enough_places(resnet: TimmBackbone) -> None:
    layers = resnet.layers()
    found = [find_layer(layers, np.zeros((1, side, side, 3), np.uint8), None) for side in (192, 96, 48, 32)]
    assert layers.stages[-1] == "layer4" and found == ["layer4", "layer3", "layer2", "layer1"]


def test_a_layer_that_there_is_not_or_that_gives_no_map(resnet: TimmBackbone) -> None:
    layers, pixels = resnet.layers(), np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(UserError) as told:
        find_layer(layers, pixels, "layer5")
    assert re.fullmatch(r"--layer layer5: the backbone has no such layer: did you mean layer\d.*\?", str(told.value))
    with pytest.raises(UserError) as told:
        find_layer(layers, pixels, "global_pool")
    assert str(told.value) == (
        f"--layer global_pool: gives ({resnet.dim},) for a picture, which is no map of it: name one before the pooling"
    )
    with pytest.raises(UserError, match="this recipe's backbone has no layers to look into"):
        Pixels(4, device=CPU).layers()


def test_tokens_become_maps_without_those_of_no_place() -> None:
    maps = torch.randn(2, 5, 3, 3)
    tokens = torch.cat([torch.zeros(2, 1, 5), maps.flatten(2).mT], dim=1)
    assert torch.equal(as_maps(tokens, prefix=1), maps)
    assert torch.equal(as_maps(maps.permute(0, 2, 3, 1), channels_last=True), maps)
    for values, said in (
        (tokens, "gives (10, 5) for a picture, which is no map of it"),
        (torch.zeros(1, 5, 1, 1), "gives (5, 1, 1) for a picture, which is no map of it"),
        ((maps,), "gives a tuple for a picture, which is no map of it"),
    ):
        with pytest.raises(UserError) as told:
            as_maps(values)  # type: ignore[arg-type]
        assert str(told.value) == said


def test_correlations_are_numpys_and_flat_maps_have_none() -> None:
    a, b = np.random.default_rng(0).random((2, 3, 4, 4))
    b[2] = 0.5
    expected = [np.corrcoef(a[i].ravel(), b[i].ravel())[0, 1] for i in range(2)]
    np.testing.assert_allclose(correlations(a, b).numpy(), expected, atol=1e-6)


def test_cam_is_a_section_with_its_comparison(plotted) -> None:
    section = json.loads((plotted / "uses/plot-cam.json").read_text())
    rows = section["tables"][0]["rows"]
    assert [row["name"] for row in rows][-1] == "trained" and rows[-2]["name"] == "step 5"
    assert rows[-2]["cells"]["as at the last step"]["mean"] == pytest.approx(1, abs=1e-5)
    assert section["settings"]["layer"].startswith("blocks.")


# ---------------------------------------------------------------- space and trajectory


def test_components_are_scikit_learns() -> None:
    weights = torch.randn(30, 50, generator=stream(0, "test")) * torch.linspace(3, 0.1, 50) + 1
    mean, axes, shares = components(weights)
    reference = PCA(2).fit(weights.double().numpy())
    np.testing.assert_allclose(mean, reference.mean_, atol=1e-5)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, rtol=1e-4)
    signs = np.sign((axes.numpy() * reference.components_).sum(1, keepdims=True))
    np.testing.assert_allclose(axes, signs * reference.components_, atol=1e-4)
    assert (axes.sum(1) >= 0).all()


def test_the_map_has_every_kind_and_says_how_much_it_shows(plotted) -> None:
    section = json.loads((plotted / "uses/plot-space.json").read_text())
    rows = {row["name"]: row["cells"] for row in section["tables"][0]["rows"]}
    assert list(rows) == ["zoo", "oracle", "generated", "universal", "base"]
    for cells in rows.values():
        assert cells["of it on the map"]["mean"] <= cells["distance from the map's centre"]["mean"] + 1e-6
    assert re.match(
        r"The map shows the first two principal components of 16 networks each of zoo, oracle, generated: \d+\.\d% and "
        r"\d+\.\d% of their variance\. The other \d+\.\d% are not on it\.",
        section["says"][0],
    )
    assert "aligned to the zoo's base by permutation" in section["figures"][0]["caption"]


def test_the_trajectory_of_unseen_tasks_is_the_reports(plotted, inside) -> None:
    report = json.loads(inside("report", plotted, "--json").stdout)
    section = report["uses"]["plot-trajectory"]
    table = next(table for table in section["tables"] if table["title"].startswith("unseen-tasks"))
    own = [row for row in report["trajectory"] if row["temperature"] == 0]
    cells = table["rows"][0]["cells"]
    for name, row in (("first step", own[0]), ("last step", own[-1])):
        assert cells[name]["mean"] == pytest.approx(row["mean"], abs=1e-6)
    assert [t["title"] for t in section["tables"]] == [
        f"{split}: accuracy (%)" for split in ("seen", "unseen-tasks", "unseen-classes")
    ]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["landscap"],
            "plot: no picture 'landscap'. Did you mean 'landscape'? Known: cam, landscape, space, trajectory",
        ),
        (["space", "--grid", 5], "plot space: --grid is for landscape alone"),
        (["space", "--classes", "a,b"], "plot space: --classes is for landscape and cam alone"),
        (["landscape", "--grid", 20], "--grid 20: the middle point is the head itself, so take an odd number: 21"),
        (["cam", "--classes", "qqqq,zzzz"], "the data set has no images of 'qqqq', 'zzzz' to score on."),
        (["cam", "--classes", "otter"], "one class ('otter') leaves nothing to tell apart: name two or more"),
        (
            ["cam", "--layer", "blocks.44"],
            "--layer blocks.44: the backbone has no such layer: did you mean blocks.4, blocks.4.2 or blocks.4.1?",
        ),
        (
            ["cam", "--layer", "conv_stem.weight"],
            "--layer conv_stem.weight: the backbone has no such layer: did you mean conv_stem or conv_head?",
        ),
    ],
)
def test_bad_input_is_one_sentence(nano, inside, arguments, message) -> None:
    assert refused(inside("plot", nano, *arguments)) == message


# ---------------------------------------------------------------- a browser

LOOK = """<script>onload = () => { document.body.dataset.found = JSON.stringify({
  images: [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().right]),
  width: innerWidth, scroll: document.documentElement.scrollWidth,
  smallest: Math.min(...[...document.querySelectorAll("p, td, th, figcaption, dd")].map(e =>
    parseFloat(getComputedStyle(e).fontSize)))}) }</script></body>"""
"""What is asked of the page from within."""


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.slow
def test_a_browser_shows_every_figure_of_a_run(plotted: Path, tmp_path: Path, width: int) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium is installed: the page is not looked at")
    page = (plotted / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page and all(f'id="plot-{name}"' in page for name in ("trajectory", "landscape", "cam"))
    policy = re.search(r"<meta http-equiv=.Content-Security-Policy.*?>", page)
    assert policy is not None and "default-src 'none'" in policy[0]
    file = tmp_path / "report.html"
    file.write_text(page.replace(policy[0], "").replace("</body>", LOOK), encoding="utf-8")
    shutil.copy(plotted / "report.html", tmp_path / "own.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--window-size={width},2400"]
    flags += ["--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]

    def ask(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([browser, *flags, *more], check=True, capture_output=True, text=True, timeout=120)

    looked = ask("--dump-dom", file.as_uri())
    found = json.loads(re.search(r'data-found="([^"]*)"', looked.stdout)[1].replace("&quot;", '"'))  # type: ignore[index]
    assert len(found["images"]) >= 11 and all(done and natural >= 1000 for done, natural, _ in found["images"])
    assert found["scroll"] <= found["width"] and found["smallest"] >= 12
    picture = tmp_path / "own.png"
    shown = ask(f"--screenshot={picture}", (tmp_path / "own.html").as_uri())  # as it is, with its policy
    for said in (looked.stderr, shown.stderr):
        assert "CONSOLE" not in said, said
    with Image.open(picture) as image:
        assert image.width == width
