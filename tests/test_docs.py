"""The documentation against the project: what it quotes, names, links to and has you type."""

import ast
import builtins
import importlib
import re

import documentation as docs
import pytest
from documentation import PAGES, ROOT, name_of, tool

from lstm_music.network.config import Config
from lstm_music.network.model import parameter_shapes
from lstm_music.runs.checkpoint import read_checkpoint
from lstm_music.runs.opened import BUNDLED, bundled_model

QUOTING = {"docs/maths.md": "python", "docs/kernels.md": "cuda"}  # all blocks of it are quotations
SUFFIX = re.compile("csv|cuh?|html|json|js|md|mid|mp3|png|py|safetensors|sqlite|toml|wav")
PARAMETERS = parameter_shapes(Config(1))  # whose names read as a module's members
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)


@EACH_PAGE
def test_quotations_are_the_source(page):
    for quote in docs.quotes(page.read_text("utf-8")):
        (path,) = docs.sources_named(quote.file)
        source = docs.definition(path, quote.name)
        assert source is not None, f"{quote.file} has no {quote.name}"
        assert quote.lines
        missing = docs.occurs(quote.lines, source)
        assert missing is None, f"{quote.file}, {quote.name}, has no more, in order: {missing}"


@pytest.mark.parametrize("page", QUOTING)
def test_all_code_of_a_page_is_quoted(page):
    text = (ROOT / page).read_text("utf-8")
    assert len(docs.quotes(text)) == len(docs.fences(text, QUOTING[page])) > 5


@EACH_PAGE
def test_files_and_functions_that_are_named_exist(page):
    known = docs.modules()
    every = set().union(*known.values()) | {"main", *dir(builtins)}
    text = page.read_text("utf-8")
    for span in docs.spans(text):
        if re.fullmatch(docs.CODE, span) and f"no `{span}`" not in text:
            assert docs.sources_named(span), f"there is no {span}"
        if dotted := re.fullmatch(r"([A-Za-z]\w+)\.(\w+)", span):
            owner, member = dotted.groups()
            if owner in known and span not in PARAMETERS and not SUFFIX.fullmatch(member):
                assert member in known[owner], f"there is no {span}"
        if call := re.fullmatch(r"(\w+)\([\w, ]*\)", span):
            assert call[1] in every, f"there is no {span}"


@EACH_PAGE
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    for link in docs.links(text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in docs.anchors(target.read_text("utf-8")), f"{link} leads nowhere"


@EACH_PAGE
def test_command_lines_parse(page):
    for line in docs.command_lines(page.read_text("utf-8")):
        wrong = docs.complaint(line)
        assert wrong is None, f"{line}: {wrong}"


def test_there_are_command_lines():
    found = [line for page in PAGES for line in docs.command_lines(page.read_text("utf-8"))]
    assert len(found) > 50
    named = {line.split()[0].removeprefix("bin/") for line in found}
    assert {
        "train",
        "sample",
        "harmonize",
        "play",
        "evaluate",
        "corpus",
        "report",
        "listen",
        "figures",
    } <= named


def test_what_is_checked_can_fail():
    (quote,) = docs.quotes("`lstm.py`, `lstm_step`:\n\n```python\n  a = 1\n\nb = 2\n```\n")
    assert quote == ("lstm.py", "lstm_step", ["a = 1", "b = 2"])
    assert docs.occurs(["a", "b"], ["a", "x", "b"]) is None
    assert docs.occurs(["b", "a"], ["a", "x", "b"]) == "a"
    (path,) = docs.sources_named("learning_rate.py")
    assert docs.definition(path, "Annealing.no_such") is None
    assert docs.definition(path, "Annealing.update")[0].startswith("def update")
    (kernel,) = docs.sources_named("dropout.cu")
    assert docs.definition(kernel, "dropout_backward") is None
    assert docs.definition(kernel, "dropout_forward")[-1] == "}"
    assert not docs.sources_named("no_such.py")
    page = "## A *b* `c`, d!\n[x](y.md#z) ![p](q.png) [w](https://w) `[n](o)`\n"
    assert docs.anchors(page) == {"a-b-c-d"}
    assert docs.links(page) == ["y.md#z", "q.png"]
    text = (
        "`bin/train bach\n--epochs 3`\n\n```\nbin/sample  # x\n$ ls\n```\n`bin/train CORPUS [--x]`"
    )
    assert docs.command_lines(text) == ["bin/sample  # x", "bin/train bach --epochs 3"]
    assert docs.complaint("bin/train bach --epochs 3 # so") is None
    assert docs.complaint("bin/evaluate --music a --bars 9") is None
    assert docs.complaint("bin/train --precision") is None
    assert "--epoch" in docs.complaint("bin/sample --epoch 3")
    assert "whole number" in docs.complaint("lstm-music train bach --epochs x")
    assert "no bin/no-such" in docs.complaint("bin/no-such")
    assert "no_such" in docs.complaint("python tools/no_such.py")
    assert "--nothing" in docs.complaint("python tools/fuzz.py --nothing")


@pytest.mark.parametrize("name", docs.COMMANDS)
def test_the_page_of_options_names_each(name):
    parser = importlib.import_module(f"lstm_music.cli.{name}").make_parser()
    page = (docs.ROOT / "docs/options.md").read_text("utf-8")
    told = set(re.findall("--[a-z0-9-]+", page)) | {"--help"}
    asked = {a.option_strings[0]: a.option_strings for a in parser._actions if a.option_strings}
    assert [option for option, names in asked.items() if not told & set(names)] == []


# Made pages and figures ---------------------------------------------------------------------------


def test_no_module_imports_a_private_name_of_another():
    found = [
        f"{path.stem}: {alias.name} of {node.module}"
        for path in docs.PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("lstm_music")
        for alias in node.names
        if re.match("_[^_]", alias.name)
    ]
    assert found == []


def test_the_core_is_as_short_as_the_readme_says():
    text = (ROOT / "README.md").read_text("utf-8").split("Then the core, ")[1]
    listed = text.split("The rest, ")[0]
    files = [span for span in docs.spans(listed) if "/" in span and span.endswith(".py")]
    assert len(files) == len(set(files)) == int(text.split()[0]) == 18
    lines = sum(
        len((ROOT / "src" / "lstm_music" / file).read_text("utf-8").splitlines()) for file in files
    )
    assert lines <= 3600


def test_the_layers_are_drawn_from_the_imports():
    layers = tool("layers")
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    assert layers.drawn_into(page) == page, "its picture is old: python tools/layers.py"
    assert layers.direct({"a": {"b", "c"}, "b": {"c"}}, "a") == {"b"}
    assert layers.direct({"a": {"b", "c"}, "b": {"d"}}, "a") == {"b", "c"}


def test_the_table_of_rules_is_written_from_the_rules():
    table = tool("rules_table")
    assert table.HEADER.read_text("utf-8") == table.header(), "python tools/rules_table.py"


def test_the_roofline_is_drawn_from_what_the_pages_state():
    roofline = tool("predictions", "benchmarks")
    profile = (ROOT / "docs" / "profile.md").read_text("utf-8")
    roof, points = roofline.cpu(profile)
    assert len(points) == 7
    for point in points:  # measured: below what the machine allows
        assert 0 < point.rate < min(roof.flops, point.intensity * roof.cache)
    slower = profile.replace("| logits, h·W | 227 | 256 |", "| logits, h·W | 227 | 512 |")
    assert slower != profile
    assert roofline.cpu(slower)[1][0].rate == pytest.approx(points[0].rate / 2)
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    roof, points = roofline.gpu(roofline.Ceilings(), page)
    assert (roof.flops, roof.memory) == (67e12, 4.8e12)
    (adam,) = [point for point in points if point.name == "adam_forward"]
    assert adam[1:4] == pytest.approx((113e6, 245e6, 52e-6), rel=0.01) and not adam.cached
    with pytest.raises(ValueError, match="no longer says"):
        roofline.stated("nothing", "([0-9]+) GB/s")


def test_the_gpu_page_predicts_what_the_model_does(tmp_path):
    model = tool("predictions", "benchmarks")
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    for name, text in model.made(model.Ceilings(), page).items():
        assert model.placed(page, name, text) == page, "python benchmarks/predictions.py --write"
    # Bytes bind Adam: with half the bandwidth it takes twice the time, but for the launch.
    file = tmp_path / "found.json"
    file.write_text('{"ceilings": {"bytes": 2.4e12, "fp32": 60e12}}')
    slow = model.measured(file)
    assert (slow.memory, slow.fp32, slow.bf16) == (2.4e12, 60e12, model.Ceilings().bf16)
    GAP = tool("kernel_model", "benchmarks").GAP
    adam = model.step(model.CASES[0], "fp32", page)[-1]
    times = [adam.seconds(c) - GAP for c in (slow, model.Ceilings())]
    assert adam.bound(slow) == "bytes" and times[0] == pytest.approx(2 * times[1])


def test_the_scaling_page_predicts_what_the_model_does():
    model = tool("scaling", "benchmarks")
    page = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    assert "\n".join(model.table()) in page
    strong = model.cost(model.Shape(35_509, 128, 1250), model.HERE, 2)
    assert f"{1e3 * (strong.gradients + strong.update + strong.exposed):.0f} and 927 ms" in page


def test_the_kernels_page_predicts_what_the_gpu_page_does():
    rows = tool("predictions", "benchmarks").rows
    kernels = (ROOT / "docs" / "kernels.md").read_text("utf-8")
    shown = rows(kernels, "Predicted times, and the roofline")
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    predicted = rows(page, "What is predicted")
    compared = 0
    for kernel, (*_, moved, flops, _, time) in shown.items():
        if "µs" in time:
            name = kernel.split(",")[0].replace("sum_squares", "sum of squares")
            there = next(cells for row, cells in predicted.items() if re.match(rf"{name}\b", row))
            assert there[0].startswith(moved) and there[3].startswith(time), kernel
            assert flops in ("–", there[1]), kernel
            compared += 1
    assert compared > 10


@pytest.mark.parametrize("name", BUNDLED)
def test_the_model_card_is_of_the_bundled_models(name):
    card = (ROOT / "docs" / "model-card.md").read_text("utf-8")
    checkpoint = read_checkpoint(bundled_model(name))
    config, meta = checkpoint.config, checkpoint.meta
    size = sum(p.size for p in checkpoint.parameters.values())
    assert (
        f"{config.layers} layers of {config.hidden} units, embedding of {config.embedding}" in card
    )
    words = "88 notes" if config.reads_notes else f"{config.vocabulary} words"
    assert f"over {words}; {size:,} parameters, {4 * size / 1e6:.1f} MB" in card
    assert f"step {meta['step']:,}" in card
    best = f"**{meta['progress']['best']:.4f}"
    assert best in (bundled_model(name) / "README.md").read_text("utf-8")
    if config.reads_notes:
        assert best in card
