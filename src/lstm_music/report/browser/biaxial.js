"use strict";
// A network of two axes, as network/biaxial.py: each note is a row of its own that goes through the
// same layers and reads the notes around it; an LSTM over the notes of a frame, from the lowest up,
// says how likely each is given those below.

class BiaxialNetwork extends Network {
  get rows() {
    return PIANO;
  }

  reset() {
    super.reset();
    this.frames = 0; // that came before
  }

  /** Read a frame's notes, or [PIANO], the start symbol; past: the frames that may come again. */
  read(notes, past) {
    const { embedding, hidden: H } = this.model;
    let [x, E] = [this.inputs(notes, past?.told(LOWEST, LOWEST + PIANO - 1) ?? []), embedding];
    this.h.forEach((h, layer) => {
      for (let row = 0; row < PIANO; row++) {
        const of = (a, size) => a.subarray(row * size, (row + 1) * size);
        lstmStep(this.p, `lstm.${layer}`, of(x, E), of(h, H), of(this.c[layer], H));
      }
      [x, E] = [h, H];
    });
    this.out = x;
    this.frames++;
  }

  /** Return what each note reads, (PIANO · E): rows of tables, by inputs that aren't 0. */
  inputs(notes, told) {
    const { embedding: E } = this.model;
    const alike = this.alike(notes, told);
    const x = this.p["embedding.pitch"].slice();
    const rowOf = (note) => x.subarray(note * E, (note + 1) * E);
    const W = this.p["embedding.W"];
    const add = (note, input, times = 1) => addProduct([times], W.subarray(input * E), rowOf(note));
    const counts = new Array(OCTAVE).fill(0); // by place in the octave
    for (const other of notes.filter((note) => note < PIANO)) {
      counts[other % OCTAVE]++;
      const last = Math.min(other + OCTAVE, PIANO - 1);
      for (let note = Math.max(other - OCTAVE, 0); note <= last; note++) {
        add(note, other - note + OCTAVE);
      }
    }
    for (let note = 0; note < PIANO; note++) {
      addProduct([1], alike, rowOf(note));
      for (let n = 0; n < OCTAVE; n++) {
        const times = counts[(note + n) % OCTAVE];
        if (times) add(note, 2 * OCTAVE + 1 + n, times);
      }
    }
    const { trusts } = this.model.around;
    const kinds = Math.max(...trusts) + 1;
    told.forEach((one, k) => {
      if (!one) return;
      const input = 3 * OCTAVE + 1 + kinds * k + trusts[one[1]];
      for (const pitch of one[0]) add(pitch - LOWEST, input);
    });
    return x;
  }

  /** Return what all notes read alike, (E): whether it is the start, its place, how runs stand. */
  alike(notes, told) {
    const { embedding: E, around } = this.model;
    const found = new Float32Array(E);
    const add = (row) => addProduct([1], this.p["embedding.frame"].subarray(row * E), found);
    if (notes[0] === PIANO) add(0);
    let first = 1;
    for (const size of around.meters) {
      add(first + (this.frames % size));
      first += size;
    }
    told.forEach((one, k) => one && add(first + around.trusts.length * k + one[1]));
    return found;
  }

  /** As Network.notes. */
  notes(temperature, choose) {
    const { hidden: H } = this.model;
    const [Wo, bo] = [this.p["head.Wo"], this.p["head.bo"]];
    const [h, c] = [new Float32Array(Wo.length), new Float32Array(Wo.length)];
    const x = new Float32Array(H + 2 * OCTAVE);
    const counts = new Array(OCTAVE).fill(0); // of the notes below, by place in the octave
    const on = [];
    for (let d = 0; d < PIANO; d++) {
      x.set(this.out.subarray(d * H, (d + 1) * H));
      for (let n = 0; n < OCTAVE; n++) {
        x[H + n] = on[d - 1 - n] ?? 0;
        x[H + OCTAVE + n] = counts[(d - 1 - n + OCTAVE) % OCTAVE];
      }
      lstmStep(this.p, "head", x, h, c);
      const [z] = affine(h, Wo, bo);
      on.push(Number(choose(sigmoid(z / temperature), d)));
      counts[d % OCTAVE] += on[d];
    }
    return on;
  }

  /** As Network.copyScores: of the mean of the rows. */
  copyScores() {
    const { hidden: H } = this.model;
    const mean = new Float32Array(H);
    for (let n = 0; n < this.out.length; n++) mean[n % H] += this.out[n] / PIANO;
    return super.copyScores(mean);
  }
}

/** Return the network of a model. */
const networkOf = (model) => new (model.head === "biaxial" ? BiaxialNetwork : Network)(model);
