"""How kernels/lstm_sequence_bf16.cu runs: the recurrent product on the tensor cores."""

LARGEST_H = 128  # registers hold no more of Wh


def bf16_sequence_rows(B: int, H: int, multiprocessors: int, shared_bytes: int) -> int | None:
    """Return the rows of the batch of a block, None for an H that the kernel isn't for.

    As few as there are multiprocessors for: the fewer, the sooner is a step done.
    """
    if H % 16 or not 0 < H <= LARGEST_H:
        return None
    rows = next((n for n in (2, 4) if n * multiprocessors >= B), 8)
    return rows if bf16_sequence_shared(rows, H, True) <= shared_bytes else None


def bf16_sequence_options(rows: int, H: int) -> tuple[str, ...]:
    """Return the compiler's options for a hidden size and rows a block."""
    return (f"-DLSTM_H={H}", f"-DLSTM_ROWS={rows}")


def bf16_sequence_shared(rows: int, H: int, backward: bool) -> int:
    """Return the bytes of shared memory, by the widths of rows in lstm_sequence_bf16.cu."""
    apart, stages = 32 // rows, 3 if rows == 8 else 4
    if not backward:
        return rows * (4 * stages * (4 * H + apart) + 2 * 2 * (H + 8))
    part = 32 * -(-H // 32) + apart
    bias = 8 * 2 * H if rows == 8 else 0
    return 4 * (rows * (stages * (6 * H + apart) + 2 * (H // 16) * part) + bias)
