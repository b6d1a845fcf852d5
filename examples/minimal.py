"""Music from an LSTM, all of it: MIDI files, tokens, network, gradients, Adam, a MIDI file.

    python examples/minimal.py                        learn from the bundled Bach, write minimal.mid
    python examples/minimal.py FOLDER --steps 3000    or from MIDI files of yours

NumPy computes, mido reads and writes MIDI. Names and equations are those of docs/maths.md, whose
sections stand in brackets: T time steps, B streams, V tokens, E and H sizes of embedding and state,
gates i, f, g, o; arrays are time-major, (T, B, ·), and dx is the gradient of the loss by x.
"""

import argparse
import io
import zipfile
from pathlib import Path

import mido
import numpy as np

BACH = zipfile.Path(Path(__file__).resolve().parents[1] / "src/lstm_music/data/bach.zip")
QUARTER, DRUMS, KINDS = 480, 9, ("note_off", "note_on")  # ticks; mido's channel and messages
END = 0  # the id of piece-end, which ends a piece and begins the next
T, B, E, H = 64, 32, 64, 192
TOP_P, VOICES, LONGEST, SHORTEST, MOST_TOKENS = 0.7, 4, 4 * QUARTER, 32 * QUARTER, 1000
RATE, BETA1, BETA2, EPS, CLIP = 0.006, 0.9, 0.999, 1e-8, 5.0

# MIDI files -> tokens -> windows [1] --------------------------------------------------------------


def read(path):
    """Return the content of MIDI files: one, or those of a folder."""
    files = sorted(path.iterdir(), key=str) if path.is_dir() else [path]
    return [file.read_bytes() for file in files if file.name.endswith(".mid")]


def words_of(content):
    """Return the tokens of a MIDI file: what begins or ends, and how many ticks after the last."""
    midi = mido.MidiFile(file=io.BytesIO(content))
    time, rows, sounding = 0, set(), np.zeros(128, int)
    for m in mido.merge_tracks(midi.tracks):
        time += m.time
        if m.type in KINDS and m.channel != DRUMS:
            tick = round(time * QUARTER / midi.ticks_per_beat)
            on = m.type == "note_on" and m.velocity > 0
            if on and sounding[m.note] and (tick, True, m.note) not in rows:
                rows.add((tick, False, m.note))  # struck while it sounds, it ends and begins anew
            if on or sounding[m.note] == 1:  # what two tracks play together ends with the later
                rows.add((tick, on, m.note))
            sounding[m.note] = max(0, sounding[m.note] + (1 if on else -1))
    words, last = [], 0
    for tick, on, pitch in sorted(rows):  # at one tick, what ends stands before what begins
        words.append(f"note-{'on' if on else 'off'}-{pitch}-{tick - last}")
        last = tick
    return [*words, "piece-end"]


def windows(pieces, rng):
    """Yield x, y (T, B) and keep (T, B, 1): what is read, what follows, 0 where a piece begins."""
    while True:  # the pieces lie end to end on B streams, each time in another order
        ids = np.concatenate([pieces[n] for n in rng.permutation(len(pieces))])
        n = len(ids) // B
        x, y = (a[: n * B].reshape(B, n).T for a in (np.roll(ids, 1), ids))
        keep = (x[:, :, None] != END).astype(np.float32)
        keep[0] = 0  # there a stream begins; the next windows go on with the state of the last
        for t in range(0, n - T + 1, T):
            yield x[t : t + T], y[t : t + T], keep[t : t + T]


# Network, forward and backward [2, 3, 4, 6] -------------------------------------------------------


def new_parameters(V, rng):
    """Return new weights by their names; the network remembers before it has learnt to."""
    shapes = {"lstm.0.Wx": (E, 4 * H), "lstm.0.Wh": (H, 4 * H), "head.W": (H, V)}
    p = {k: rng.uniform(-1, 1, shape) / np.sqrt(H) for k, shape in shapes.items()}
    p["lstm.0.b"] = np.repeat([0.0, 1.0, 0.0, 0.0], H)  # the forget gate begins open
    p |= {"embedding.W": rng.standard_normal((V, E)), "head.b": np.zeros(V)}
    return {k: a.astype(np.float32) for k, a in p.items()}


def forward(p, x, keep, h0, c0):
    """Return logits (T, B, V) of what follows x; gates (T, B, 4H), h and c (T + 1, B, H)."""
    gates = p["embedding.W"][x] @ p["lstm.0.Wx"] + p["lstm.0.b"]
    h, c = np.empty((2, len(x) + 1, *h0.shape), gates.dtype)
    h[0], c[0] = h0, c0  # the state before; so h[t] is that before step t, h[t + 1] after it
    for t in range(len(x)):
        gates[t] += keep[t] * (h[t] @ p["lstm.0.Wh"])
        i, f, g, o = np.split(gates[t], 4, axis=1)  # views: activations take the place of gates
        i[:], f[:], o[:] = (np.tanh(a * 0.5) * 0.5 + 0.5 for a in (i, f, o))  # sigmoids
        g[:] = np.tanh(g)
        c[t + 1] = f * (keep[t] * c[t]) + i * g
        h[t + 1] = o * np.tanh(c[t + 1])
    return h[1:] @ p["head.W"] + p["head.b"], gates, h, c


def loss_and_grads(p, x, y, keep, h0, c0):
    """Return the mean nats per token, the gradient by each of p, and the state after x."""
    logits, gates, h, c = forward(p, x, keep, h0, c0)
    at_target = (*np.indices(y.shape), y)
    logits -= logits.max(axis=2, keepdims=True)
    total = np.exp(logits).sum(axis=2, keepdims=True)
    loss = float(np.mean(np.log(total[..., 0]) - logits[at_target]))
    dlogits = np.exp(logits) / (total * y.size)  # what is predicted,
    dlogits[at_target] -= 1 / y.size  # less what is there
    dy, dgates = dlogits @ p["head.W"].T, np.empty_like(gates)
    dh, dc = np.zeros_like(h0), np.zeros_like(c0)
    for t in reversed(range(len(x))):
        i, f, g, o = np.split(gates[t], 4, axis=1)
        di, df, dg, do = np.split(dgates[t], 4, axis=1)
        tanh_c = np.tanh(c[t + 1])
        dh += dy[t]
        dc += dh * o * (1 - tanh_c**2)
        do[:] = dh * tanh_c * o * (1 - o)
        di[:] = dc * g * i * (1 - i)
        df[:] = dc * (keep[t] * c[t]) * f * (1 - f)
        dg[:] = dc * i * (1 - g**2)
        dc = keep[t] * (dc * f)
        dh = keep[t] * (dgates[t] @ p["lstm.0.Wh"].T)
    over = ((0, 1), (0, 1))  # the weights are those of all steps: gradients are sums over T and B
    grads = {
        "embedding.W": np.zeros_like(p["embedding.W"]),
        "lstm.0.Wx": np.tensordot(p["embedding.W"][x], dgates, over),
        "lstm.0.Wh": np.tensordot(keep * h[:-1], dgates, over),
        "lstm.0.b": dgates.sum((0, 1)),
        "head.W": np.tensordot(h[1:], dlogits, over),
        "head.b": dlogits.sum((0, 1)),
    }
    np.add.at(grads["embedding.W"], x, dgates @ p["lstm.0.Wx"].T)
    return loss, grads, h[-1], c[-1]


# Learning [10, 11] and composing [13] -------------------------------------------------------------


def adam_step(p, grads, m, v, t, rate):
    """Take step t: change p, and the means m of gradients and v of their squares."""
    norm = np.sqrt(sum(float(np.sum(g * g)) for g in grads.values()))
    for k, g in grads.items():
        g = g * min(1.0, CLIP / (norm + 1e-6))
        m[k] += (1 - BETA1) * (g - m[k])
        v[k] += (1 - BETA2) * (g * g - v[k])
        p[k] -= rate / (1 - BETA1**t) * m[k] / (np.sqrt(v[k] / (1 - BETA2**t)) + EPS)


def compose(p, words, rng):
    """Return a piece, drawn token by token, as a track: what may begin does, and what may end."""
    on = np.array([word.startswith("note-on") for word in words], int)
    pitch, delta = np.array([["0", "0"], *(word.split("-")[2:] for word in words[1:])], int).T
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(90))])
    began, now, id = np.full(128, np.inf), 0, END  # when each note began that sounds
    h = c = np.zeros((1, H), np.float32)
    while len(track) < MOST_TOKENS:
        logits, _, h, c = forward(p, np.array([[id]]), np.ones((1, 1, 1), np.float32), h, c)
        h, c, z = h[-1], c[-1], logits[0, 0].astype(float)
        sounds = began < np.inf
        allowed = (sounds[pitch] != on) & ((on == 0) | (sounds.sum() < VOICES))
        allowed &= (now - began.min() < LONGEST) | (pitch == began.argmin())
        allowed[END] = now >= SHORTEST and not sounds.any()
        ids = np.argsort(np.where(allowed, -z, np.inf))[: np.count_nonzero(allowed)]
        total = np.cumsum(np.exp(z[ids] - z.max()))  # of the likeliest first
        last = total[np.searchsorted(total, TOP_P * total[-1])]  # of those that hold a share TOP_P
        id = ids[np.searchsorted(total, rng.random() * last, side="right")]
        if id == END:
            break
        now += delta[id]
        began[pitch[id]] = now if on[id] else np.inf
        track.append(mido.Message(KINDS[on[id]], note=pitch[id], velocity=80, time=delta[id]))
    return track + [mido.Message("note_off", note=n) for n in np.flatnonzero(began < np.inf)]


def main():
    """Learn, print the loss, and write a piece."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, default=[BACH], help="MIDI files, folders")
    parser.add_argument("--steps", type=int, default=1200)
    args = parser.parse_args()
    try:
        texts = [words_of(content) for path in args.files for content in read(path)]
    except (OSError, EOFError, ValueError, mido.KeySignatureError) as error:
        parser.error(f"a file can't be read ({error or 'it is cut off'}): give other MIDI files")
    words = ["piece-end", *sorted({word for text in texts for word in text} - {"piece-end"})]
    ids = {word: id for id, word in enumerate(words)}
    pieces = [np.array([ids[word] for word in text]) for text in texts]
    if sum(map(len, pieces)) < B * T:
        parser.error(f"there are fewer than {B * T} tokens: give more music")
    print(f"{len(pieces)} pieces, {sum(map(len, pieces)):,} tokens, {len(words)} different")
    rng = np.random.default_rng(0)
    p = new_parameters(len(words), rng)
    m, v = ({k: np.zeros_like(a) for k, a in p.items()} for _ in range(2))
    h = c = np.zeros((B, H), np.float32)
    for t, (x, y, keep) in zip(range(1, args.steps + 1), windows(pieces, rng), strict=False):
        loss, grads, h, c = loss_and_grads(p, x, y, keep, h, c)
        adam_step(p, grads, m, v, t, RATE * (1 - t / (args.steps + 1)))
        if t % 50 == 0 or t == args.steps:
            print(f"step {t}: {loss:.3f} nats per token", flush=True)
    mido.MidiFile(ticks_per_beat=QUARTER, tracks=[compose(p, words, rng)]).save("minimal.mid")
    print("minimal.mid")


if __name__ == "__main__":
    main()
