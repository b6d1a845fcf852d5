"""Ten training steps against PyTorch: embedding, LSTM, linear, cross-entropy, clipping, optimiser.

Both for tokens and for notes; of a NADE, which PyTorch doesn't have, the gradients.

PyTorch's LSTM has two biases. Ours is its bias_ih; its bias_hh stays zero, outside the optimiser,
so that both sides have the same parameters.
"""

import sys

import numpy as np
import pytest
from documentation import ROOT
from gradcheck import dense

from lstm_music.arrays import NO_NOTES, Batch, RowGradient
from lstm_music.corpus.batches import on_device
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.network.notes import NadeHead
from lstm_music.network.optim import Optimizer, clip_scale, global_norm
from lstm_music.ops.reference.copying import BUCKETS, HIT, NOTHING

torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")

T, B, STEPS = 7, 4, 10
TOKENS = Config(vocabulary=11, embedding=5, hidden=6, layers=2)
NOTES = Config(vocabulary=9, embedding=5, hidden=6, layers=2, head="sigmoid")


def batches(config):
    """Windows of random inputs, a fifth of the targets masked; rows start anew in two of them."""
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        if config.reads_notes:
            x, y = rng.integers(2, size=(2, T, B, config.vocabulary + 1), dtype=np.uint8)
            y = y[..., : config.vocabulary].copy()
            none = rng.random((T, B)) < 0.2
            y[none, 0] = NO_NOTES
        else:
            x, y = rng.integers(config.vocabulary, size=(2, T, B), dtype=np.int32)
            none = rng.random((T, B)) < 0.2
            y[none] = -1
        keep = np.ones((T, B))
        if step in (3, 7):
            keep[0, step % B] = 0
        yield Batch(x, y, None if keep.all() else keep, int((~none).sum()))


class TorchModel(torch.nn.Module):
    """The same network in PyTorch's own layers."""

    def __init__(self, parameters, config):
        super().__init__()
        self.config = config
        V, E, H, L = config.vocabulary, config.embedding, config.hidden, config.layers
        self.embedding = torch.nn.Embedding(len(parameters["embedding.W"]), E, dtype=torch.float64)
        self.lstm = torch.nn.LSTM(E, H, L, dtype=torch.float64)
        self.head = torch.nn.Linear(H, V, dtype=torch.float64)
        with torch.no_grad():
            for name, ours in self.by_our_names().items():
                ours.copy_(torch.from_numpy(parameters[name].copy()))
            for name, p in self.lstm.named_parameters():
                if name.startswith("bias_hh"):
                    p.zero_().requires_grad_(False)

    def by_our_names(self):
        """Views of the parameters, named and laid out as ours."""
        p = {
            "embedding.W": self.embedding.weight,
            "head.W": self.head.weight.T,
            "head.b": self.head.bias,
        }
        for layer in range(self.config.layers):
            p[f"lstm.{layer}.Wx"] = getattr(self.lstm, f"weight_ih_l{layer}").T
            p[f"lstm.{layer}.Wh"] = getattr(self.lstm, f"weight_hh_l{layer}").T
            p[f"lstm.{layer}.b"] = getattr(self.lstm, f"bias_ih_l{layer}")
        return p

    def loss(self, batch, state):
        """Mean nats per target, and the state after the window, cut from the graph."""
        if batch.keep is not None:
            state = tuple(s * torch.from_numpy(batch.keep[0])[None, :, None] for s in state)
        y, state = self.lstm(self.read(torch.from_numpy(batch.x)), state)
        loss = self.mean_nats(self.head(y), torch.from_numpy(batch.y))
        return loss, tuple(s.detach() for s in state)

    def read(self, x):
        """The embeddings of ids (T, B), or the sum of those of notes (T, B, D + 1)."""
        if self.config.reads_notes:
            return x.double() @ self.embedding.weight
        return self.embedding(x.long())

    def mean_nats(self, logits, y):
        """The mean over the targets; of notes, their nats are summed."""
        if not self.config.reads_notes:
            return torch.nn.functional.cross_entropy(
                logits.reshape(T * B, -1), y.long().reshape(-1), ignore_index=-1
            )
        used = y[..., 0] != NO_NOTES
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits[used], y[used].double(), reduction="sum"
        ) / int(used.sum())


def train_torch(config, parameters, kind, lr, clip, decay=0.0):
    """Losses, gradient norms, and parameters by our names after ten steps."""
    model = TorchModel(parameters, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = {
        "adam": lambda: torch.optim.AdamW(groups, lr) if decay else torch.optim.Adam(trained, lr),
        "rmsprop": lambda: torch.optim.RMSprop(trained, lr),
        "sgd": lambda: torch.optim.SGD(trained, lr),
    }[kind]()
    zero = torch.zeros(config.layers, B, config.hidden, dtype=torch.float64)
    state, losses, norms = (zero, zero), [], []
    for batch in batches(config):
        loss, state = model.loss(batch, state)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained, clip)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, {n: p.detach().numpy() for n, p in model.by_our_names().items()}


def train_ours(ops, config, parameters, kind, lr, clip, decay=0.0):
    model = Model(config, ops, parameters={n: ops.asarray(p.copy()) for n, p in parameters.items()})
    optimizer = Optimizer(ops, kind, model.parameters, decay)
    state, losses, norms = model.zero_state(B), [], []
    for x, y, keep, targets, *_ in batches(config):
        keep = None if keep is None else ops.asarray(keep)
        batch = Batch(ops.asarray(x, x.dtype), ops.asarray(y, y.dtype), keep, targets)
        loss, grads, state = model.loss_and_grads(batch, state)
        norms.append(global_norm(ops, grads))
        optimizer.step(model.parameters, grads, lr, clip_scale(norms[-1], clip))
        losses.append(loss)
    return losses, norms, {n: ops.to_numpy(p) for n, p in model.parameters.items()}


def check_ten_steps(ops, config, kind, lr, clip, decay=0.0):
    initial = {
        name: ops.to_numpy(p).copy() for name, p in Model(config, ops, seed=3).parameters.items()
    }
    losses, norms, parameters = train_ours(ops, config, initial, kind, lr, clip, decay)
    torch_losses, torch_norms, torch_parameters = train_torch(
        config, initial, kind, lr, clip, decay
    )
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-9)
    np.testing.assert_allclose(norms, torch_norms, rtol=1e-6)
    assert set(parameters) == set(torch_parameters)
    for name, p in parameters.items():
        np.testing.assert_allclose(p, torch_parameters[name], rtol=1e-6, atol=1e-6, err_msg=name)
        # Ten steps went somewhere.
        assert np.abs(p - initial[name]).max() > 1e-4, name
    return norms


@pytest.mark.parametrize("clip", [5.0, 0.05], ids=["clip 5", "clip that bites"])
@pytest.mark.parametrize(("kind", "lr"), [("adam", 3e-3), ("rmsprop", 2e-3), ("sgd", 1.0)])
def test_ten_training_steps(ops, kind, lr, clip):
    norms = check_ten_steps(ops, TOKENS, kind, lr, clip)
    assert (min(norms) > clip) == (clip < 1)


@pytest.mark.parametrize("config", [TOKENS, NOTES], ids=["tokens", "notes"])
def test_ten_steps_of_adam_with_weight_decay(ops, config):
    check_ten_steps(ops, config, "adam", 3e-3, 5.0, decay=5.0)


def test_ten_training_steps_on_notes(ops):
    check_ten_steps(ops, NOTES, "adam", 3e-3, 5.0)


# NADE -------------------------------------------------------------------------------------------


def nade_nats(p, h, notes):
    """Larochelle & Murray 2011, equations 3 and 4, note by note, with biases linear in h."""
    a = h @ p["Wh"] + p["bh"]
    visible = h @ p["Wv"] + p["bv"]
    nats = torch.zeros(len(h), dtype=torch.float64)
    for d in range(notes.shape[1]):
        on = torch.sigmoid(visible[:, d] + torch.sigmoid(a) @ p["U"][d])
        nats = nats - torch.where(notes[:, d] == 1, on.log(), (1 - on).log())
        a = a + notes[:, d, None] * p["W"][d]
    return nats


def test_a_nades_gradients(ops):
    rng = np.random.default_rng(0)
    head = NadeHead(H=6, D=13, K=7)
    arrays = {name: rng.normal(0, 0.5, shape) for name, shape in head.shapes().items()}
    arrays["h"] = rng.normal(size=(10, 6))
    notes = rng.integers(2, size=(10, 13), dtype=np.uint8)
    theirs = {n: torch.from_numpy(a).clone().requires_grad_() for n, a in arrays.items()}
    nats = nade_nats(theirs, theirs["h"], torch.from_numpy(notes).double())
    (0.3 * nats.sum()).backward()
    ours = {name: ops.asarray(a) for name, a in arrays.items()}
    losses, dh, grads = head.losses_and_grads(
        ops, ours, ours["h"], ops.asarray(notes, np.uint8), 0.3, ops.workspace()
    )
    np.testing.assert_allclose(ops.to_numpy(losses), nats.detach().numpy(), rtol=1e-9)
    grads = grads | {"h": dh}
    assert grads.keys() == theirs.keys()
    for name, g in grads.items():
        expected = theirs[name].grad.numpy()
        np.testing.assert_allclose(
            ops.to_numpy(g), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max(), err_msg=name
        )


def rivals_network(parameters, **sizes):
    """PyTorch's side of benchmarks/rivals.py, biaxial or with a copy gate, with our parameters."""
    sys.path.append(str(ROOT / "benchmarks"))
    from gpu_cases import Case
    from rival_networks import row_ends, word_ends

    torch.manual_seed(0)
    case = Case("", B=B, T=T, **sizes)
    lstm = torch.nn.LSTM(case.width, case.H, case.L)
    layers = [(lstm, n, f"lstm.{n}.") for n in range(2)]
    if case.head == "biaxial":
        ends = row_ends(case)
        over_notes, linear = ends.head
        layers.append((over_notes, 0, "head."))
        named = {
            "embedding.W": ends.embedding.near.weight, "embedding.pitch": ends.embedding.pitch,
            "head.Wo": linear.weight, "head.bo": linear.bias,
        }  # fmt: skip
    else:
        ends = word_ends(case)
        linear, gate = ends.head
        named = {
            "embedding.W": ends.embedding.weight, "head.W": linear.weight, "head.b": linear.bias,
            "copy.G": gate.G.weight, "copy.R": gate.R.weight,
        }  # fmt: skip
    for module, n, prefix in layers:
        for ours, theirs in (("Wx", "weight_ih"), ("Wh", "weight_hh"), ("b", "bias_ih")):
            named[prefix + ours] = getattr(module, f"{theirs}_l{n}")
    modules = torch.nn.ModuleList([ends.embedding, ends.head, lstm]).double()
    turned = {name for name in named if name.split(".")[1] not in ("pitch", "b", "bo", "R")}
    turned -= {"embedding.W"} if case.copy else set()
    with torch.no_grad():
        for name, p in modules.named_parameters():
            if "bias_hh" in name:
                p.zero_()
        for name, p in named.items():
            value = torch.from_numpy(parameters[name])
            p.copy_((value.T if name in turned else value).reshape(p.shape))
    out = lstm(ends.embedding(ends.x if case.copy else ends.x.double()))[0]
    loss = ends.loss(out, ends.y if case.copy else ends.y.double(), True)  # or logits are fp32
    loss.backward()
    grads = {
        name: (p.grad.T if name in turned else p.grad).numpy().reshape(parameters[name].shape)
        for name, p in named.items()
    }
    return ends, loss.item(), grads


def test_a_biaxial_network_is_that_of_pytorch(ops):
    H = 5
    model = Model(Config(88, H, H, 2, head="biaxial", nade=H), ops)
    rng = np.random.default_rng(0)
    parameters = {name: rng.normal(0, 0.3, p.shape) for name, p in model.parameters.items()}
    parameters["embedding.frame"][...] = 0  # places in the bar, which the rival doesn't read
    for name, p in model.parameters.items():
        p[...] = ops.asarray(parameters[name])
    ends, loss, grads = rivals_network(parameters, V=88, H=H, head="biaxial")
    x = np.zeros((T, B, 90), np.uint8)
    x[..., :88] = ends.x.numpy()
    batch = on_device(ops, Batch(x, ends.y.numpy().astype(np.uint8), None, T * B))
    found, found_grads, _ = model.loss_and_grads(batch, model.zero_state(B))
    assert found == pytest.approx(loss, rel=1e-12)
    for name, expected in grads.items():
        np.testing.assert_allclose(ops.to_numpy(found_grads[name]), expected, atol=1e-11)


def test_a_copy_gate_is_that_of_pytorch(ops):
    model = Model(Config(11, 4, 5, 2, copy=6), ops)
    rng = np.random.default_rng(0)
    parameters = {name: rng.normal(0, 0.5, p.shape) for name, p in model.parameters.items()}
    for name, p in model.parameters.items():
        p[...] = ops.asarray(parameters[name])
    ends, loss, grads = rivals_network(parameters, V=11, H=5, E=4, copy=6)
    gate = ends.head[1]
    recall = gate.run - BUCKETS * torch.arange(6) + HIT * ~gate.wrong
    recall[gate.missing] = NOTHING
    assert {NOTHING, 0, HIT} <= set(recall.ravel().tolist())
    x, y = (ids.numpy().astype(np.int32) for ids in (ends.x, ends.y))
    recall = recall.numpy().astype(np.uint8).reshape(T, B, 6)
    batch = on_device(ops, Batch(x, y, None, T * B, recall=recall))
    found, found_grads, _ = model.loss_and_grads(batch, model.zero_state(B))
    assert found == pytest.approx(loss, rel=1e-12)
    for name, expected in grads.items():
        g = found_grads[name]
        if isinstance(g, RowGradient):
            g = dense(RowGradient(*map(ops.to_numpy, g)), expected.shape)
        np.testing.assert_allclose(ops.to_numpy(g), expected, atol=1e-11, err_msg=name)
