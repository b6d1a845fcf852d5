"""benchmarks/transformer.py: a causal network, judged as ours is, trained end to end."""

import json
import sys

import numpy as np
import pytest
from documentation import ROOT

pytest.importorskip("torch", reason="PyTorch, of which the transformer is made, is not installed")
sys.path.append(str(ROOT / "benchmarks"))

import torch

import transformer
from lstm_music.arrays import NO_TARGET
from lstm_music.evaluation.likelihood import evaluate
from lstm_music.ops import get_ops
from lstm_music.runs.opened import evaluation_corpus, open_run
from rival_transformer import Shape, Transformer
from transformer import batches, corpus_of, judge

SMALL = {"layers": 2, "width": 16, "heads": 2, "dropout": 0.3}


@pytest.fixture(scope="module")
def chorales():
    """The bundled corpus, three pieces in each of its splits."""
    corpus = corpus_of("bach", "")
    corpus.splits.update({split: corpus.splits[split][:3] for split in corpus.splits})
    return corpus


def network(words, context, **given):
    torch.manual_seed(0)
    model = Transformer(Shape(words, context=context, **SMALL | given)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape))  # so that no part is nearly nothing
    return model


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_later_token_changes_no_earlier_logit(positions):
    model, ids = network(30, 12, positions=positions), torch.randint(30, (2, 12))
    other = ids.clone()
    other[:, 7] = (other[:, 7] + 1) % 30
    with torch.no_grad():
        one, two = model(ids), model(other)
    torch.testing.assert_close(one[:, :7], two[:, :7], rtol=0, atol=1e-5)
    assert float((one[:, 7:] - two[:, 7:]).abs().amax(dim=(0, 2)).min()) > 1e-3


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_positions_matter(positions):
    model, ids = network(30, 12, positions=positions), torch.arange(12)[None]
    swapped = ids[:, [1, 0, *range(2, 12)]]
    with torch.no_grad():
        assert float((model(ids) - model(swapped))[:, 2:].abs().max()) > 1e-3


def test_nats_of_windows_are_those_of_whole_pieces(chorales):
    longest = max(chorales.lengths[piece] for piece in chorales.splits["valid"])
    model = network(len(chorales.vocabulary), longest + 7)
    source, total, tokens = chorales.source([0] * len(chorales.pieces)), 0.0, 0
    for piece in chorales.splits["valid"]:
        n = chorales.lengths[piece]
        x, y = torch.from_numpy(transformer.pair(source, piece, n))
        assert int(x[0]) == source.start_id and x[1:].tolist() == y[:-1].tolist()
        with torch.no_grad():
            nats = torch.log_softmax(model(x[None])[0].double(), dim=-1)
        total -= float(nats[torch.arange(n), y].sum())
        tokens += n
    row = judge(model, chorales, "valid", (longest + 7) // 2)
    assert row["tokens"] == tokens
    assert row["nats_per_token"] == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize("stride", [1, 5, 16, 24, 32])
def test_each_token_of_a_piece_counts_once(chorales, stride, monkeypatch):
    """A network that knows nothing but an id's number finds the same by any windows."""
    model = network(len(chorales.vocabulary), 32)
    asked = []

    def losses(x, y):
        asked.append(y[y != NO_TARGET])
        return torch.where(y == NO_TARGET, 0.0, y.double())

    monkeypatch.setattr(model, "losses", losses)
    row = judge(model, chorales, "test", stride)
    ids = np.concatenate([chorales.piece_ids(piece) for piece in chorales.splits["test"]])
    assert row["nats_per_token"] == pytest.approx(ids.mean())
    np.testing.assert_array_equal(np.sort(torch.cat(asked)), np.sort(ids))


def test_notes_are_counted_as_by_our_evaluation():
    checkpoint, folder = open_run("bach", print)
    corpus = evaluation_corpus("bach", checkpoint, folder, None, None)
    own = corpus_of("bach", "")
    assert own.key == corpus.key
    for name in ("valid", "test"):
        corpus.splits[name] = own.splits[name] = own.splits[name][:1]
    model = network(len(own.vocabulary), 32)
    ours = evaluate("bach", checkpoint, corpus, "test", get_ops("numpy"))[0]
    theirs = judge(model, own, "test", 16)
    assert [theirs[k] for k in ("tokens", "notes")] == [ours[k] for k in ("tokens", "notes")]
    assert theirs["nats_per_note"] / theirs["nats_per_token"] == pytest.approx(
        ours["nats_per_note"] / ours["nats_per_token"]
    )


def test_an_epoch_holds_each_token_once_but_for_its_ends(chorales):
    train = np.concatenate([chorales.piece_ids(piece) for piece in chorales.splits["train"]])
    found, T, B = [], 32, 4
    windows = len(train) // T
    for n, (x, y) in enumerate(batches(chorales, T, B, 0), 1):
        assert x.shape == y.shape and x.shape[1] == T
        found.append(y.flatten())
        if n == -(-windows // B):
            break
    counts = np.bincount(torch.cat(found), minlength=len(chorales.vocabulary))
    whole = np.bincount(train, minlength=len(chorales.vocabulary))
    assert counts.sum() == windows * T and (counts <= whole).all()


def test_a_few_steps_of_both_end_to_end(chorales, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(transformer, "corpus_of", lambda *given: chorales)
    monkeypatch.setattr(transformer, "evaluation_corpus", lambda *given: chorales)
    monkeypatch.setattr(transformer, "get_ops", lambda name: get_ops("numpy"))
    out = tmp_path / "out.json"
    words = ["--steps", "2", "--checks", "2", "--context", "32", "--batch", "2", "--width", "16",
             "--layers", "1", "--heads", "2", "--out", out]  # fmt: skip
    ours = "--hidden 8 --embedding 8 --batch 2 --max-steps 3 --backend numpy"
    assert transformer.main([*map(str, words), "--train", ours]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["steps"] for row in rows] == [3, 2]
    assert [steps for _, steps, _ in rows[1]["curve"]] == [1, 2]
    for row in rows:
        least = min(nats for *_, nats in row["curve"])
        assert least == pytest.approx(row["valid, nats a note"], rel=1e-4)
        assert row["test, nats a note"] > 0 and row["tokens a second"] > 0
    assert "| transformer |" in capsys.readouterr().out
