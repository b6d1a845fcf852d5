"use strict";
// A tune to enter: a grid of pitches and steps for mouse, touch, keys and MIDI keyboards.

const ROW = 16; // pixels of a pitch
const COLUMN = { 120: 14, 240: 22 }; // and of a step, by its ticks
const MOST_BARS = 48; // the words of more are too many for a piece
const SVG = "http://www.w3.org/2000/svg";

const pitchName = (pitch) => `${NAMES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;

const toSixteenth = (tick) => Math.round(tick / KEY_STEP) * KEY_STEP;

/** Return notes on a grid of sixteenths, none shorter than one. */
function onSixteenths(notes) {
  return notes.map(([start, end, pitch]) => {
    const begin = toSixteenth(start);
    return [begin, Math.max(toSixteenth(end), begin + KEY_STEP), pitch];
  });
}

/**
 * Return the tune of a MIDI file as `readMidi` read it: notes on a grid of sixteenths, their bar,
 * its meter's name if that is in eighths, its tempo, and what was changed, in sentences.
 *
 * The tune is the highest of the tracks with many notes. known: lengths of bars.
 */
function tuneOfMidi({ tracks, meter, tempo }, known) {
  const many = Math.max(...tracks.map((notes) => notes.length)) / 2;
  const height = (notes) => notes.reduce((sum, note) => sum + note[2], 0) / notes.length;
  const chosen = tracks.filter((notes) => notes.length >= many);
  const notes = chosen.reduce((a, b) => (height(b) > height(a) ? b : a));
  const said = [];
  const moved = notes.filter(([start]) => Math.abs(start - toSixteenth(start)) > 1).length;
  if (moved) said.push(`${moved} notes were moved to sixteenths.`);
  const placed = onSixteenths(notes);
  const alone = oneAtATime(placed);
  const left = placed.length - alone.length;
  if (left) said.push(`Of notes at once the highest is the tune: ${left} are left out.`);
  const [first, second] = meter;
  const pickup = second && second[0] === first[1] && first[1] < second[1] ? first[1] : 0;
  let [, bar, power] = (pickup ? second : first) ?? [0, BAR, 2];
  if (!known.includes(bar)) {
    said.push("Its meter can't be set here: bars are of 4/4.");
    bar = BAR;
  }
  const shift = pickup ? bar - pickup : 0;
  const silent = Math.floor(((alone[0]?.[0] ?? 0) + shift) / bar) * bar - shift;
  const whole = alone.map(([start, end, pitch]) => [start - silent, end - silent, pitch]);
  const kept = whole.filter(([, end]) => end <= MOST_BARS * bar);
  if (kept.length < whole.length) said.push(`Only its first ${MOST_BARS} bars fit.`);
  return { notes: kept, bar, name: power === 3 ? "6/8" : "", tempo, said };
}

/** A grid to enter a tune in, one note at a time. */
class TuneGrid {
  /** changed: called after each change; heard: with a pitch to sound. */
  constructor(svg, names, cursorText, changed, heard) {
    Object.assign(this, { svg, names, cursorText, changed, heard });
    Object.assign(this, { notes: [], bar: BAR, beat: QUARTER, bars: 8 });
    Object.assign(this, { step: 240, low: 60, high: 81 });
    this.length = QUARTER; // of notes to come, in ticks
    this.cursor = { tick: 0, pitch: 67 };
    svg.addEventListener("keydown", (event) => this.press(event));
    svg.addEventListener("focus", () => this.draw());
    svg.addEventListener("pointerdown", (event) => this.touch(event));
    svg.addEventListener("touchstart", (event) => {
      const onNote = this.noteAt(...this.placeOf(event.touches[0])); // it's dragged, not scrolled
      if (onNote && event.cancelable) event.preventDefault();
    });
  }

  get end() {
    return this.bars * this.bar;
  }

  get scale() {
    return COLUMN[this.step] / this.step; // pixels a tick
  }

  /** Take a tune, in a range of pitches that holds it. */
  show(notes, [low, high], bar = this.bar) {
    const ticks = notes[notes.length - 1]?.[1] ?? 0;
    Object.assign(this, { notes, bar });
    this.bars = Math.max(8, Math.ceil(ticks / bar));
    this.low = notes.reduce((least, note) => Math.min(least, note[2]), low);
    this.high = notes.reduce((most, note) => Math.max(most, note[2]), high);
    if (notes.some(([start, end]) => start % this.step || end % this.step)) this.step = 120;
    this.cursor.pitch = Math.min(Math.max(this.cursor.pitch, this.low), this.high);
    this.cursor.tick = Math.min(this.cursor.tick, this.end - this.step);
    this.draw();
    this.changed();
  }

  /** Return the note that sounds at a tick, of a pitch or of any. */
  noteAt(tick, pitch = null) {
    return this.notes.find(
      ([start, end, own]) => start <= tick && tick < end && (pitch === null || own === pitch),
    );
  }

  /** Put a note; those that it meets end before it, or go. */
  put(start, end, pitch) {
    const stop = Math.min(end, MOST_BARS * this.bar);
    if (start >= stop) return null;
    const note = [start, stop, pitch];
    const others = this.notes
      .map(([from, to, own]) => [from, from < start ? Math.min(to, start) : to, own])
      .filter(([from]) => from < start || from >= stop);
    this.notes = [...others, note].sort((a, b) => a[0] - b[0]);
    while (this.end < stop) this.bars++;
    this.draw();
    this.changed();
    return note;
  }

  remove(note) {
    this.notes = this.notes.filter((own) => own !== note);
    this.draw();
    this.changed();
  }

  /** Enter a note at the cursor and go on behind it, as MIDI keyboards do. */
  enter(pitch) {
    const { tick } = this.cursor;
    if (!this.put(tick, tick + this.length, pitch)) return;
    const next = Math.min(tick + this.length, MOST_BARS * this.bar - this.step);
    while (this.end <= next) this.bars++;
    this.low = Math.min(this.low, pitch);
    this.high = Math.max(this.high, pitch);
    this.cursor = { tick: next, pitch };
    this.draw();
  }

  // ---- Keys ----

  press(event) {
    const { key, shiftKey, ctrlKey, altKey, metaKey } = event;
    if (ctrlKey || altKey || metaKey || !this.obey(key, shiftKey)) return;
    event.preventDefault();
    this.draw();
    this.reveal();
  }

  /** Do what a key says; return whether it says something. */
  obey(key, shift) {
    const { cursor, step } = this;
    const moves = { ArrowLeft: -step, ArrowRight: step, PageUp: -this.bar, PageDown: this.bar };
    const along = moves[key];
    const up = { ArrowUp: shift ? 12 : 1, ArrowDown: shift ? -12 : -1 }[key];
    if (along && shift && Math.abs(along) === step) {
      const note = this.noteAt(cursor.tick);
      if (note) this.put(note[0], Math.max(note[1] + along, note[0] + step), note[2]);
      if (note) cursor.tick = Math.min(cursor.tick, this.noteAt(note[0])[1] - step);
    } else if (along) {
      cursor.tick = Math.min(Math.max(cursor.tick + along, 0), this.end - step);
    } else if (up) cursor.pitch = Math.min(Math.max(cursor.pitch + up, this.low), this.high);
    else if (key === "Home" || key === "End") cursor.tick = key === "Home" ? 0 : this.end - step;
    else if (key === "Enter" || key === " ") {
      this.put(cursor.tick, cursor.tick + this.length, cursor.pitch);
      this.heard(cursor.pitch);
    } else if (key === "Delete" || key === "Backspace") this.remove(this.noteAt(cursor.tick));
    else return false;
    return true;
  }

  /** Scroll to the cursor. */
  reveal() {
    const box = this.svg.parentElement;
    const x = this.cursor.tick * this.scale;
    const room = box.clientWidth - 80;
    if (x < box.scrollLeft) box.scrollLeft = x;
    if (x > box.scrollLeft + room) box.scrollLeft = x - room;
  }

  // ---- Mouse and touch: a press sets a note or takes it away, a drag makes it longer ----

  touch(event) {
    if (event.button) return;
    const [tick, pitch] = this.placeOf(event);
    let note = this.noteAt(tick, pitch);
    const found = note;
    let dragged = false;
    const drags = found || event.pointerType === "mouse"; // a finger beside notes scrolls
    const move = (later) => {
      const [to] = this.placeOf(later);
      if (!drags || (!dragged && to === tick)) return;
      dragged = true;
      note = this.put(note?.[0] ?? tick, Math.max(to, note?.[0] ?? tick) + this.step, pitch);
    };
    const stop = (later) => {
      for (const [name, heed] of heeded) this.svg.removeEventListener(name, heed);
      if (later.type === "pointercancel") return; // the page scrolls
      this.cursor = { tick: note?.[0] ?? tick, pitch };
      if (!dragged && found) return this.remove(found);
      if (!dragged) this.put(tick, tick + this.length, pitch);
      this.heard(pitch);
    };
    const heeded = [["pointermove", move], ["pointerup", stop], ["pointercancel", stop]];
    for (const [name, heed] of heeded) this.svg.addEventListener(name, heed);
    this.svg.setPointerCapture(event.pointerId);
  }

  /** Return the tick and the pitch under a pointer. */
  placeOf({ clientX, clientY }) {
    const { left, top } = this.svg.getBoundingClientRect();
    const column = Math.floor((clientX - left) / COLUMN[this.step]);
    const row = Math.floor((clientY - top) / ROW);
    const tick = Math.min(Math.max(column * this.step, 0), this.end - this.step);
    return [tick, Math.min(Math.max(this.high - row, this.low), this.high)];
  }

  // ---- What is shown ----

  draw() {
    const { svg, names, bar, beat, step, bars, low, high, scale, notes, cursor } = this;
    const [width, height] = [this.end * scale, (high - low + 1) * ROW];
    const y = (pitch) => (high - pitch) * ROW;
    const parts = [];
    const add = (name, settings, text) => parts.push(drawnNode(name, settings, text));
    const labels = [];
    for (let pitch = low; pitch <= high; pitch++) {
      const black = NAMES[pitch % 12].length > 1;
      if (black) add("rect", { class: "black", x: 0, y: y(pitch), width, height: ROW });
      const named = { x: 32, y: y(pitch) + 12, class: pitch % 12 ? "" : "octave" };
      if (!black) labels.push(drawnNode("text", named, pitchName(pitch)));
      add("rect", { class: "line", x: 0, y: y(pitch), width, height: 1 });
    }
    for (let tick = 0; tick < this.end; tick += step) {
      const kind = tick % bar === 0 ? "bar" : tick % bar % beat === 0 ? "beat" : "line";
      add("rect", { class: kind, x: tick * scale, y: 0, width: 1, height });
    }
    for (let n = 0; n < bars; n++) add("text", { x: n * bar * scale + 4, y: height - 4 }, n + 1);
    for (const [start, end, pitch] of notes) {
      const long = (end - start) * scale - 2;
      const box = { x: start * scale + 1, y: y(pitch) + 1, width: long, height: ROW - 2, rx: 3 };
      add("rect", { class: "note", ...box });
    }
    const box = { x: cursor.tick * scale, y: y(cursor.pitch), width: step * scale, height: ROW };
    add("rect", { class: "cursor", ...box });
    for (const [own, inside, wide] of [[svg, parts, width], [names, labels, 34]]) {
      own.setAttribute("width", wide);
      own.setAttribute("height", height);
      own.replaceChildren(...inside);
    }
    this.tell();
  }

  /** Say where the cursor is, and what sounds there. */
  tell() {
    const { tick, pitch } = this.cursor;
    const note = this.noteAt(tick);
    const beat = Math.round((100 * (tick % this.bar)) / this.beat) / 100 + 1;
    const sounds = note ? ` · ${pitchName(note[2])} sounds` : "";
    this.cursorText.textContent =
      `${pitchName(pitch)}, bar ${Math.floor(tick / this.bar) + 1}, beat ${beat}${sounds}`;
  }
}

/** Return a node of a drawing. */
function drawnNode(name, settings, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(settings)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}
