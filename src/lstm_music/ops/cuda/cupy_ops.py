"""CUDA through CuPy: our own kernels for everything but the GEMMs, which are cuBLAS's.

Nothing here reads from the device but what a contract returns as a number (`sum_squares`) or as an
array of unknown length (`embedding_backward`); inside `recording` not even these do, so that a
whole training step can be captured as one CUDA graph (lstm_music/training/graph_step.py).
"""

from lstm_music.ops.cuda import copying, dropout, embeddings, lstm, notes, optimizer, softmax
from lstm_music.ops.cuda.launch import Launcher


class CupyOps(Launcher):
    """The ops on an NVIDIA GPU: each a function of its part, which takes these ops first.

    precision: of the GEMMs of float32 models. "fp32" is strict; "tf32" and "bf16" let the tensor
    cores round the factors, and add up in fp32. State, losses and weights are fp32 in all three.
    "bf16" reads copies in bf16 of a softmax head's factors: half the bytes. There the recurrent
    product too rounds its factors (h, Wh and the gates' gradients) to bf16, where the device has
    tensor cores and H fits; elsewhere, and with "fp32" and "tf32" always, it is fp32.
    """

    lstm_cell_forward = lstm.lstm_cell_forward
    lstm_cell_backward = lstm.lstm_cell_backward
    lstm_step_forward = lstm.lstm_step_forward
    lstm_sequence_forward = lstm.lstm_sequence_forward
    lstm_sequence_backward = lstm.lstm_sequence_backward

    embedding_forward = embeddings.embedding_forward
    embedding_backward = embeddings.embedding_backward
    embedding_backward_dense = embeddings.embedding_backward_dense
    note_embedding_forward = embeddings.note_embedding_forward
    note_embedding_backward = embeddings.note_embedding_backward

    softmax_xent = softmax.softmax_xent
    softmax_nll = softmax.softmax_nll
    linear_softmax_xent = softmax.linear_softmax_xent
    linear_softmax_nll = softmax.linear_softmax_nll

    sigmoid_xent = notes.sigmoid_xent
    sigmoid_nll = notes.sigmoid_nll
    nade_xent = notes.nade_xent
    nade_nll = notes.nade_nll
    nade_sample = notes.nade_sample

    copy_shares = copying.copy_shares
    copy_backward = copying.copy_backward
    mix_losses = copying.mix_losses

    dropout = dropout.dropout

    sum_squares = optimizer.sum_squares
    adam_step = optimizer.adam_step
    adam_step_rows = optimizer.adam_step_rows
    average_step = optimizer.average_step
    # All parameters at once, as a captured step does it.
    table = optimizer.table_of
    clip_all = optimizer.clip_all
    adam_all = optimizer.adam_all
