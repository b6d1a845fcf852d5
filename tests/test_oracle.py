"""Ten training steps against PyTorch: embedding, LSTM, linear, cross-entropy, clipping, optimiser.

PyTorch's LSTM has two biases. Ours is its bias_ih; its bias_hh stays zero, outside the optimiser,
so that both sides have the same parameters.
"""

import numpy as np
import pytest

from lstm_music.model import Batch, Config, Model
from lstm_music.optim import Optimizer, clip_scale, global_norm

torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")

T, B, STEPS = 7, 4, 10
CONFIG = Config(vocabulary=11, embedding=5, hidden=6, layers=2)


def batches():
    """Windows of random ids, a fifth of the targets masked; rows start anew in two of them."""
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        x, y = rng.integers(CONFIG.vocabulary, size=(2, T, B), dtype=np.int32)
        y[rng.random((T, B)) < 0.2] = -1
        keep = np.ones((T, B))
        if step in (3, 7):
            keep[0, step % B] = 0
        yield Batch(x, y, None if keep.all() else keep, int((y >= 0).sum()))


class TorchModel(torch.nn.Module):
    """The same network in PyTorch's own layers."""

    def __init__(self, parameters):
        super().__init__()
        V, E, H, L = CONFIG.vocabulary, CONFIG.embedding, CONFIG.hidden, CONFIG.layers
        self.embedding = torch.nn.Embedding(V, E, dtype=torch.float64)
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
        for layer in range(CONFIG.layers):
            p[f"lstm.{layer}.Wx"] = getattr(self.lstm, f"weight_ih_l{layer}").T
            p[f"lstm.{layer}.Wh"] = getattr(self.lstm, f"weight_hh_l{layer}").T
            p[f"lstm.{layer}.b"] = getattr(self.lstm, f"bias_ih_l{layer}")
        return p

    def loss(self, batch, state):
        """Mean nats per target, and the state after the window, cut from the graph."""
        if batch.keep is not None:
            state = tuple(s * torch.from_numpy(batch.keep[0])[None, :, None] for s in state)
        y, state = self.lstm(self.embedding(torch.from_numpy(batch.x).long()), state)
        loss = torch.nn.functional.cross_entropy(
            self.head(y).reshape(T * B, -1),
            torch.from_numpy(batch.y).long().reshape(-1),
            ignore_index=-1,
        )
        return loss, tuple(s.detach() for s in state)


def train_torch(parameters, kind, lr, clip):
    """Losses, gradient norms, and parameters by our names after ten steps."""
    model = TorchModel(parameters)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = {
        "adam": lambda: torch.optim.Adam(trained, lr),
        "rmsprop": lambda: torch.optim.RMSprop(trained, lr),
        "sgd": lambda: torch.optim.SGD(trained, lr),
    }[kind]()
    zero = torch.zeros(CONFIG.layers, B, CONFIG.hidden, dtype=torch.float64)
    state, losses, norms = (zero, zero), [], []
    for batch in batches():
        loss, state = model.loss(batch, state)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained, clip)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, {n: p.detach().numpy() for n, p in model.by_our_names().items()}


def train_ours(ops, parameters, kind, lr, clip):
    model = Model(CONFIG, ops, parameters={n: ops.asarray(p.copy()) for n, p in parameters.items()})
    optimizer = Optimizer(ops, kind, model.parameters)
    state, losses, norms = model.zero_state(B), [], []
    for x, y, keep, targets in batches():
        keep = None if keep is None else ops.asarray(keep)
        batch = Batch(ops.asarray(x, np.int32), ops.asarray(y, np.int32), keep, targets)
        loss, grads, state = model.loss_and_grads(batch, state)
        norms.append(global_norm(ops, grads))
        optimizer.step(model.parameters, grads, lr, clip_scale(norms[-1], clip))
        losses.append(loss)
    return losses, norms, {n: ops.to_numpy(p) for n, p in model.parameters.items()}


@pytest.mark.parametrize("clip", [5.0, 0.05], ids=["clip 5", "clip that bites"])
@pytest.mark.parametrize(("kind", "lr"), [("adam", 3e-3), ("rmsprop", 2e-3), ("sgd", 1.0)])
def test_ten_training_steps(ops, kind, lr, clip):
    initial = {
        name: ops.to_numpy(p).copy() for name, p in Model(CONFIG, ops, seed=3).parameters.items()
    }
    losses, norms, parameters = train_ours(ops, initial, kind, lr, clip)
    torch_losses, torch_norms, torch_parameters = train_torch(initial, kind, lr, clip)
    assert (min(norms) > clip) == (clip < 1)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-9)
    np.testing.assert_allclose(norms, torch_norms, rtol=1e-6)
    assert set(parameters) == set(torch_parameters)
    for name, p in parameters.items():
        np.testing.assert_allclose(p, torch_parameters[name], rtol=1e-6, atol=1e-6, err_msg=name)
        # Ten steps went somewhere.
        assert np.abs(p - initial[name]).max() > 1e-4, name
