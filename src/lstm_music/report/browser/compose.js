"use strict";
// Composes with the model that the page carries, by the rules of `bin/sample --strict`.
//
// A model is what report/browser_model.py writes. A note is [start, end, pitch, track], in ticks, and
// of performances its velocity.

const QUARTER = TICKS_PER_QUARTER;
const BAR = WHOLE_NOTE;
const WHOLE_PIECE = 2000; // tokens at most of a piece whose tracks follow one another
const BIN = 4; // velocities that a word of a performance stands for
const USUAL = 80; // the velocity of a note where nothing tells of it
const LOWEST = 21; // MIDI pitch of the first of the notes of frames
const PIANO = 88;

// ---- Music in the making: the notes of pieces that follow one another, each from a bar line on ----

/** Return whether a track of what a model composes is of drums. */
const isDrums = (model, track) => model.drums_alone || model.drums.includes(track);

/** Words that rules let come, of messages, events or chords; or notes, which have none. */
class Music {
  constructor(model) {
    this.model = model;
    this.rules = model.rules; // null where there are no words
    this.notes = [];
    this.bars = []; // where they begin, in ticks, if the music says so; else each BAR ticks
    this.longest = new Int32Array(this.rules?.shortest.length ?? 0);
    this.begin(0);
  }

  /** Begin a piece, at a tick. */
  begin(tick) {
    this.offset = tick;
    this.tokens = 0;
    this.end = 0; // of the last note so far
    this.above = 0; // semitones that it sounds above what is written: its key, as words tell it
    this.velocities = []; // of the notes to come, by part, as words tell it
    this.usual = undefined; // of those of a part before its first, the last that was told
    this.loud = []; // and of those that sound, by note
    if (this.rules) Object.assign(this, newPiece(this.rules));
  }

  /** Return the ids that may come next: of notes there are none. */
  allowed() {
    if (!this.rules) return [];
    return wordsThatMay(this.rules, this.piece, this.sounding, this.longest);
  }

  /** Write a note down, if it has a length; ticks of the piece. */
  write(start, end, pitch, track = 0, loud = undefined) {
    if (end <= start) return;
    this.end = Math.max(this.end, end);
    const above = isDrums(this.model, track) ? 0 : this.above;
    const note = [start + this.offset, end + this.offset, pitch + above, track];
    this.notes.push(loud ? [...note, loud] : note);
  }
}

/** Words that MIDI files are made of, messages or events: the notes of midi.tidy_track. */
class WordMusic extends Music {
  /** The tick before which nothing will be added: tracks that follow one another sound together. */
  get ready() {
    if (!this.rules.merged) return this.offset;
    const starts = this.sounding.filter((began) => began !== SILENT);
    return this.offset + Math.min(this.piece.now, ...starts);
  }

  get isFull() {
    return !this.rules.merged && this.tokens >= WHOLE_PIECE;
  }

  /** Take a token that is no end of a piece. */
  add(id) {
    const { rules, piece, sounding } = this;
    const began = sounding.slice();
    const kind = rules.kinds[id];
    const number = rules.numbers[id];
    const note = noteOf(piece, number);
    const part = Math.floor(note / PITCHES);
    this.tokens++;
    if (kind === TRACK_END) this.endTrack();
    advance(rules, piece, sounding, id);
    if (kind === KEY) this.above = ((number + 6) % 12) - 6;
    if (kind === BAR_LINE) this.bars.push(this.offset + piece.begin);
    if (kind === VELOCITY) {
      this.usual = this.velocities[part] = BIN * (number % PITCHES) + BIN / 2;
    }
    if (kind !== TRACK_END) this.writeEnded(began);
    if (kind === NOTE_ON) this.loud[note] = this.velocities[part] ?? this.usual;
  }

  /** Write what ended since notes began to sound so: by its word, of old age, or for others. */
  writeEnded(began) {
    const { rules, piece, sounding } = this;
    began.forEach((start, note) => {
      if (start === SILENT || start === sounding[note]) return;
      this.writeNote(start, Math.min(piece.now, start + rules.longest_note), note);
    });
  }

  /** End what still sounds, where the last word was, or before another piece follows. */
  endTrack() {
    const { rules, piece, sounding } = this;
    const line = rules.merged ? nextBar(piece) : Infinity;
    sounding.forEach((start, note) => {
      if (start === SILENT) return;
      const end = Math.min(start < piece.now ? piece.now : piece.now + QUARTER, line);
      this.writeNote(start, Math.min(end, start + rules.longest_note), note);
    });
  }

  /** Write a note of a part, which has a track of its own. */
  writeNote(start, end, note) {
    const first = this.rules.told < this.rules.notes; // before whom nobody's notes are
    const part = Math.floor(note / PITCHES) - first;
    this.write(start, end, note % PITCHES, this.piece.tracks + part, this.loud[note]);
  }

  endPiece() {
    if (this.piece.notes) this.endTrack();
    const { rules, piece } = this;
    this.begin(this.offset + (rules.merged ? nextBar(piece) : nextBar(piece, this.end)));
  }
}

/** Frames of a piano roll: a pitch in frames that follow one another is one note. */
class FrameMusic extends Music {
  begin(tick) {
    super.begin(tick);
    this.now = 0; // ticks since the piece began
    this.held = new Map(); // pitch -> the tick at which it was struck
  }

  /** The tick before which nothing will be added any more. */
  get ready() {
    return this.offset + Math.min(this.now, ...this.held.values());
  }

  get isFull() {
    return false;
  }

  /** Take a frame's pitches, or the token of a chord. */
  add(frame) {
    const pitches = Array.isArray(frame) ? frame : this.model.chords[frame];
    this.tokens++;
    if (this.rules) advance(this.rules, this.piece, this.sounding, frame);
    this.stopAllBut(pitches);
    for (const pitch of pitches) if (!this.held.has(pitch)) this.held.set(pitch, this.now);
    this.now += BAR / this.model.grid;
  }

  stopAllBut(pitches) {
    for (const [pitch, start] of [...this.held]) {
      if (pitches.includes(pitch)) continue;
      this.held.delete(pitch);
      this.write(start, this.now, pitch);
    }
  }

  endPiece() {
    this.stopAllBut([]);
    this.begin(this.offset + Math.ceil(this.now / BAR) * BAR);
  }
}

/** Composes without end: where a piece ends, the next one begins, and the network forgets. */
class Composer {
  /** primer: ids, or the pitches of frames; network: one that other composers may have used. */
  constructor(network, { primer = [], seed = 0, temperature = 1 } = {}) {
    this.network = network;
    this.model = network.model;
    this.primer = [...primer];
    this.random = randomNumbers(seed);
    this.temperature = temperature; // may change at any time
    const ofWords = this.model.rules && !this.model.chords;
    this.music = new (ofWords ? WordMusic : FrameMusic)(this.model);
    this.past = null; // of a network with a copy gate
    if (this.model.recall) {
      this.past = new (this.model.rules ? Past : FramePast)(this.model, network.p["copy.R"]);
    }
    this.begin();
  }

  get notes() {
    return this.music.notes;
  }

  /** Forget, and read the start symbol. */
  begin() {
    this.network.reset();
    this.past?.forget();
    this.voices = newVoices(this.model.voices);
    this.read(null);
  }

  /** Read a token, or a frame's pitches; null is the start symbol. */
  read(input) {
    if (this.model.rules) this.network.read([input ?? 0]);
    else this.network.read(input ? input.map((pitch) => pitch - LOWEST) : [PIANO], this.past);
  }

  /** Compose one token or frame, and return it. */
  step() {
    const u = this.random(); // a number for each word, an opening's too
    const next = this.primer.length ? this.primer.shift() : this.draw(u);
    if (next === 0 || this.music.isFull) {
      this.music.endPiece();
      this.begin();
    } else {
      if (this.model.craft) sing(this.model.rules, this.voices, next);
      this.music.add(next);
      this.past?.take(next);
      this.read(next);
    }
    return next;
  }

  draw(u) {
    if (!this.model.rules) return this.drawFrame();
    const { model, network, temperature, past, voices } = this;
    const { rules, craft, top_p: topP } = model;
    const { piece, sounding, longest } = this.music;
    const how = { rules, given: null, craft, temperature, topP };
    return drawWord(network, how, { piece, sounding, longest, past, voices }, u)[0];
  }

  drawFrame() {
    const { network, temperature, past } = this;
    if (past) {
      const highest = LOWEST + PIANO - 1;
      const found = past.found(network.copyScores(), LOWEST, highest);
      const [frame] = copied(found, this.random(), temperature, 1);
      if (frame) return frame;
    }
    const on = network.notes(temperature, (p) => this.random() < p);
    return on.flatMap((sounds, n) => (sounds ? [n + LOWEST] : []));
  }
}
