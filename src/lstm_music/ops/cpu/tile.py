"""A product of few rows and columns, written in LLVM's instructions."""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lstm_music.ops.cpu.arithmetic import add_pairs, multiply_add

VECTOR_BYTES = 64


def tile(rows: int, columns: int, adds: bool = True) -> Any:
    """Return a compiled y += x·w for x (rows, K), w (K, columns), y (rows, columns).

    The sums stay in vector registers over all of K, which LLVM makes of no loop over arrays. x and
    w are of y's type, rows contiguous; or uint32, each two bf16 of consecutive k, x of any strides.
    adds: else y = x·w.
    """

    @intrinsic
    def tile(typing: Any, x: Any, w: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            arrays = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args, arguments, strict=True)
            ]
            step = add_pairs if x.dtype == types.uint32 else multiply_add
            write_product(builder, arrays, rows, columns, adds, step)
            return context.get_dummy_value()

        return types.void(x, w, y), generate

    return tile


class Writer(NamedTuple):
    """Writes the instructions that address elements: vectors of them lie side by side in a row."""

    builder: Any
    real: Any  # the type of an element
    vector: Any  # of VECTOR_BYTES
    index: Any  # the type of a row's number
    step: Any

    def row(self, data: Any, stride: Any, r: Any) -> Any:
        """Return where row r begins."""
        start = self.builder.bitcast(data, ir.IntType(8).as_pointer())
        at = self.builder.gep(start, [self.builder.mul(stride, r)])
        return self.builder.bitcast(at, self.real.as_pointer())

    def place(self, start: Any, j: int) -> Any:
        """Return where vector j of a row lies."""
        at = self.builder.gep(start, [self.index(j * self.vector.count)])
        return self.builder.bitcast(at, self.vector.as_pointer())

    def load(self, start: Any, j: int) -> Any:
        """Return vector j of a row."""
        return self.builder.load(self.place(start, j), align=VECTOR_BYTES // self.vector.count)

    def store(self, value: Any, start: Any, j: int) -> None:
        """Write vector j of a row."""
        align = VECTOR_BYTES // self.vector.count
        self.builder.store(value, self.place(start, j), align=align)

    def spread(self, one: Any) -> Any:
        """Return a vector of one element in all lanes."""
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.vector.count), None)
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, one, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, first, zeros)


def write_product(
    builder: Any, arrays: list[Any], rows: int, columns: int, adds: bool, step: Any
) -> None:
    """Write y += x·w for x, w, y as Numba has arrays: y's elements, a loop over K, y's elements.

    step: writes the sum of a product of vectors and a vector.
    """
    x, w, y = arrays
    down = [builder.extract_value(a.strides, 0) for a in arrays]
    K = builder.extract_value(x.shape, 1)
    real = y.data.type.pointee  # pairs of bf16 have as many bytes as a float32
    lanes = VECTOR_BYTES // (4 if real == ir.FloatType() else 8)
    write = Writer(builder, real, ir.VectorType(real, lanes), K.type, step)
    places = [(r, j) for r in range(rows) for j in range(columns // lanes)]
    x_rows = [write.row(x.data, down[0], K.type(r)) for r in range(rows)]
    y_rows = [write.row(y.data, down[2], K.type(r)) for r in range(rows)]
    zeros = ir.Constant(write.vector, None)
    before = {(r, j): write.load(y_rows[r], j) if adds else zeros for r, j in places}
    apart = builder.extract_value(x.strides, 1)
    if step is multiply_add:
        apart = K.type(VECTOR_BYTES // lanes)
    sums = write_loop(write, K, (x_rows, apart), (w.data, down[1]), before)
    for r, j in places:
        write.store(sums[r, j], y_rows[r], j)


def write_loop(
    write: Writer, K: Any, x: tuple[list[Any], Any], w: tuple[Any, Any], before: dict[Any, Any]
) -> dict[Any, Any]:
    """Write the loop over k; return the sums behind it, by row and vector, as before has them.

    x: where each of its rows begins, and how far apart their elements. w: where it lies, and how
    far apart its rows.
    """
    builder, entry = write.builder, write.builder.basic_block
    body, after = builder.append_basic_block("k"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", K, write.index(0)), body, after)

    builder.position_at_end(body)
    k = builder.phi(write.index)
    sums = {place: builder.phi(write.vector) for place in before}
    made = write_step(write, k, x, w, sums)
    following = builder.add(k, write.index(1))
    k.add_incoming(write.index(0), entry)
    k.add_incoming(following, body)
    for place, total in sums.items():
        total.add_incoming(before[place], entry)
        total.add_incoming(made[place], body)
    builder.cbranch(builder.icmp_signed("<", following, K), body, after)

    builder.position_at_end(after)
    totals = {place: builder.phi(write.vector) for place in before}
    for place, total in totals.items():
        total.add_incoming(before[place], entry)
        total.add_incoming(made[place], body)
    return totals


def write_step(
    write: Writer, k: Any, x: tuple[list[Any], Any], w: tuple[Any, Any], sums: dict[Any, Any]
) -> dict[Any, Any]:
    """Write one step of the loop; return the sums with x[r, k]·w[k] added."""
    x_rows, apart = x
    weights = write.row(*w, k)
    loaded = [write.load(weights, j) for j in range(len(sums) // len(x_rows))]
    made = {}
    for r, x_row in enumerate(x_rows):
        lanes = write.spread(write.builder.load(write.row(x_row, apart, k)))
        for j, weight in enumerate(loaded):
            made[r, j] = write.step(write.builder, lanes, weight, sums[r, j])
    return made
