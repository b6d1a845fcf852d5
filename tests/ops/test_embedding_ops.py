import numpy as np
import pytest
from gradcheck import check_gradients, dense

IDS = {
    "one": np.array([[2]]),
    "distinct": np.array([[3, 0, 1]]),
    "repeated": np.array([[4, 0, 4], [4, 1, 0], [0, 0, 4]]),
    "all the same": np.full((5, 2), 3),
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
def test_gradient(ops, ids):
    V, E = 6, 3
    rng = np.random.default_rng(0)
    W, weights = rng.normal(size=(V, E)), rng.normal(size=(*ids.shape, E))
    device_ids = ops.asarray(ids, np.int32)

    def loss():
        out = ops.asarray(np.zeros_like(weights))
        ops.embedding_forward(ops.asarray(W), device_ids, out)
        return float((weights * ops.to_numpy(out)).sum())

    g = ops.embedding_backward(device_ids.reshape(-1), ops.asarray(weights.reshape(-1, E)))
    g = type(g)(ops.to_numpy(g.rows), ops.to_numpy(g.values))
    assert g.rows.tolist() == sorted(set(ids.flat))
    check_gradients(loss, {"W": W}, {"W": dense(g, W.shape)})
    dW = ops.asarray(np.full(W.shape, np.nan))
    ops.embedding_backward_dense(device_ids.reshape(-1), ops.asarray(weights.reshape(-1, E)), dW)
    np.testing.assert_allclose(ops.to_numpy(dW), dense(g, W.shape), rtol=1e-12)
