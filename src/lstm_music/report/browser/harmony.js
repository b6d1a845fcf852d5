"use strict";
// Harmonising in the page: a tune is entered, the other voices are composed, heard and kept.

const PARTICLES = 16; // drafts: eight bars take 0.9 s of a core; of 8 drafts 0.5, of 32 1.7
const VOICE_NAMES = VOICES.map((voice) => voice[0].toUpperCase() + voice.slice(1));
const METERS = { "4/4": BAR, "3/4": 3 * QUARTER, "2/4": 2 * QUARTER, "6/8": 3 * QUARTER };
const FIFTHS = [0, 7, 2, 9, 4, 11, 6, 1, 8, 3, 10, 5]; // keys in the order of their sharps
// "Ode to Joy", Beethoven 1824: pitches and quarter notes.
const EXAMPLE =
  "66 1 66 1 67 1 69 1 69 1 67 1 66 1 64 1 62 1 62 1 64 1 66 1 66 1.5 64 .5 64 2 " +
  "66 1 66 1 67 1 69 1 69 1 67 1 66 1 64 1 62 1 62 1 64 1 66 1 64 1.5 62 .5 62 2";

/** Return notes of pitches and lengths in quarter notes, one after the other. */
function notesOfText(text) {
  const numbers = text.split(" ").map(Number);
  let now = 0;
  return numbers.flatMap((pitch, n) =>
    n % 2 ? [] : [[now, (now += numbers[n + 1] * QUARTER), pitch]],
  );
}

/** Return the name of a key: of its major and its minor. */
const nameOfKey = (key) => `${NAMES[key]} / ${NAMES[(key + 9) % 12]}m`;

class Harmoniser {
  constructor() {
    const by = (name) => byId(`harmonise-${name}`);
    this.by = by;
    this.models = DATA.models.filter((model) => model.voices.includes(0));
    this.networks = new Map();
    this.roll = makeRoll(by("roll"), 8 * BAR);
    this.grid = new TuneGrid(
      by("grid"), by("names"), by("cursor"), () => this.forget(), (pitch) => this.hear(pitch),
    );
    this.models.forEach((model, n) => by("run").add(new Option(model.name, n)));
    by("run").closest("div").hidden = this.models.length < 2;
    VOICE_NAMES.forEach((name, voice) => by("voice").add(new Option(name, voice)));
    for (const key of FIFTHS) by("key").add(new Option(nameOfKey(key), key));
    this.listen();
    this.chooseRun();
    const { notes, bar, voice, tempo } = DATA.tune ?? {};
    by("voice").value = voice ?? 0;
    if (tempo) this.setTempo(tempo);
    const begins = oneAtATime(onSixteenths(notes ?? notesOfText(EXAMPLE)));
    this.take(begins, this.meters.includes(bar) ? bar : BAR);
  }

  /** Have controls do what they say. */
  listen() {
    const { by, grid } = this;
    const on = (name, event, act) => by(name).addEventListener(event, act);
    on("run", "change", () => this.chooseRun());
    on("voice", "change", () => this.take(grid.notes));
    on("key", "change", () => this.forget());
    on("meter", "change", () => this.take(grid.notes, METERS[by("meter").value]));
    on("step", "change", () => {
      grid.step = Number(by("step").value);
      this.take(grid.notes);
    });
    on("length", "change", () => (grid.length = Number(by("length").value)));
    on("seed", "change", () => this.forget());
    on("more", "click", () => {
      grid.bars = Math.min(grid.bars + 4, MOST_BARS);
      grid.draw();
    });
    on("clear", "click", () => this.take([]));
    on("go", "click", () => this.harmonise());
    on("another", "click", () => {
      by("seed").value = Number(by("seed").value) + 1;
      this.harmonise();
    });
    on("listen", "click", () => (this.voice ? this.stop() : this.play()));
    on("save", "click", () => this.save());
    on("file", "change", () => this.open(by("file").files[0]));
    on("keyboard", "click", () => this.connect());
    by("keyboard").hidden = !navigator.requestMIDIAccess;
    const box = by("box");
    box.addEventListener("dragover", (event) => event.preventDefault());
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      this.open(event.dataTransfer.files[0]);
    });
    for (const name of ["temperature", "tempo"]) {
      const show = () => (by(`${name}-value`).textContent = by(name).value);
      on(name, "input", show);
      show();
    }
  }

  get network() {
    const n = Number(this.by("run").value);
    if (!this.networks.has(n)) this.networks.set(n, new Network(this.models[n]));
    return this.networks.get(n);
  }

  get tempo() {
    return Number(this.by("tempo").value);
  }

  /** The lengths of bars that may be chosen. */
  get meters() {
    return [...this.by("meter").options].map(({ value }) => METERS[value]);
  }

  get inSix() {
    return this.by("meter").value === "6/8";
  }

  setTempo(tempo) {
    this.by("tempo").value = Math.round(tempo);
    this.by("tempo-value").textContent = this.by("tempo").value;
  }

  /** Take another model: its tempo, and the meters that it knows. */
  chooseRun() {
    const model = this.models[Number(this.by("run").value)];
    const known = knownBars(model);
    const meters = Object.keys(METERS).filter((name) => known.includes(METERS[name]));
    this.by("meter").replaceChildren(...meters.map((name) => new Option(name)));
    this.setTempo(model.tempo);
    this.forget();
  }

  // ---- The tune ----

  /** Take notes as the tune, in its voice's range, and say what was changed. */
  take(notes, bar = this.grid.bar, said = []) {
    const voice = Number(this.by("voice").value);
    const by = notes.length ? octavesInto(notes, voice) : 0;
    const many = Math.abs(by) === 12 ? "an octave" : `${Math.abs(by) / 12} octaves`;
    const way = by > 0 ? "up" : "down";
    if (by) said.push(`The tune is moved ${many} ${way}, to where a ${VOICES[voice]} sings.`);
    const moved = notes.map(([start, end, pitch]) => [start, end, pitch + by]);
    const name = Object.keys(METERS).find((own) => METERS[own] === bar);
    if (METERS[this.by("meter").value] !== bar && name) this.by("meter").value = name;
    this.grid.beat = this.inSix ? 3 * 240 : QUARTER;
    this.grid.show(moved, RANGES[voice], bar);
    this.by("step").value = this.grid.step;
    this.say(said.join(" "));
  }

  /** Read a MIDI file. */
  async open(file) {
    if (!file) return;
    const found = readMidi(new Uint8Array(await file.arrayBuffer()));
    if (!found?.tracks.length) {
      return this.say(`${file.name} has no notes to read: choose a MIDI file.`);
    }
    const { notes, bar, name, tempo, said } = tuneOfMidi(found, this.meters);
    if (METERS[name] === bar) this.by("meter").value = name;
    if (tempo) this.setTempo(Math.min(Math.max(tempo, 40), 200));
    this.take(notes, bar, said);
  }

  /** Let MIDI keyboards enter notes at the cursor. */
  async connect() {
    const access = await navigator.requestMIDIAccess().catch(() => null);
    const inputs = [...(access?.inputs.values() ?? [])];
    for (const input of inputs) {
      input.onmidimessage = ({ data: [status, pitch, loud] }) => {
        if (status >> 4 !== 9 || !loud) return;
        this.grid.enter(pitch);
        this.hear(pitch);
      };
    }
    const names = inputs.map((input) => input.name).join(", ");
    const none = "No MIDI keyboard answers: connect one and press again.";
    this.say(names ? `Play on ${names}: each note is entered at the cursor.` : none);
  }

  /** Return the tune as words take it: an upbeat, if there is one, is a short first bar. */
  tune() {
    const { notes, bar } = this.grid;
    const rest = Math.floor((notes[0][0] % bar) / QUARTER) * QUARTER;
    const short = 2 * rest >= bar && knownBars(this.network.model).includes(bar - rest);
    const shift = notes[0][0] - (notes[0][0] % bar) + (short ? rest : 0);
    const key = this.by("key").value;
    return {
      notes: notes.map(([start, end, pitch]) => [start - shift, end - shift, pitch]),
      pickup: short ? bar - rest : 0, bar, key: key === "" ? null : Number(key),
    };
  }

  // ---- The setting ----

  /** Forget what was composed. */
  forget() {
    this.working = null;
    this.made = null;
    this.stop();
    const { notes } = this.grid;
    for (const name of ["listen", "save", "another"]) this.by(name).disabled = true;
    const found = notes.length ? `${nameOfKey(keyOf(notes))}, as found` : "as found";
    this.by("key").options[0].textContent = found;
    this.roll.draw([], NOWHERE);
    this.by("legend").replaceChildren();
    this.by("facts").textContent = "";
    this.showState();
  }

  /** Compose the other voices, a little at a time so that the page stays awake. */
  async harmonise() {
    if (this.working) {
      this.working = null;
      return this.showState();
    }
    if (!this.grid.notes.length) {
      return this.say("There is no tune yet: set some notes in the grid.");
    }
    this.forget();
    const begun = performance.now();
    const [tune, seed] = [this.tune(), Number(this.by("seed").value)];
    const temperature = Number(this.by("temperature").value);
    const voice = Number(this.by("voice").value);
    const how = { seed, particles: PARTICLES, temperature };
    const { group, unknown } = settingOf(this.network, tune, voice, how);
    if (!group) {
      return this.say("The model knows none of these notes: choose another key or voice.");
    }
    this.working = group;
    this.showState();
    while (!group.done) {
      const pause = performance.now();
      while (!group.done && performance.now() - pause < BUSY) group.step();
      this.by("progress").value = group.share;
      await new Promise((resolve) => setTimeout(resolve));
      if (this.working !== group) return;
    }
    this.working = null;
    this.show(group.chosen().ids, tune, (performance.now() - begun) / 1000, unknown);
  }

  /** Show what was composed. */
  show(ids, tune, seconds, unknown) {
    const { model } = this.network;
    const voice = Number(this.by("voice").value);
    const { notes, bars: begun } = notesOf(model, ids, tune, voice);
    this.roll.total = Math.max(...notes.map((note) => note[1]));
    const bars = begun.filter((tick) => tick < this.roll.total); // the last word opens another
    this.made = { notes, bars };
    this.roll.bars = bars;
    this.roll.draw(notes, NOWHERE);
    const parts = [...new Set(notes.map((note) => note[3]))].sort((a, b) => a - b);
    this.by("legend").replaceChildren(...parts.map((part) => this.legendOf(part)));
    for (const name of ["listen", "save", "another"]) this.by(name).disabled = false;
    this.by("facts").textContent =
      `${parts.length} voices, ${bars.length} bars · composed in ${seconds.toFixed(1)} s`;
    const left = ` ${unknown.length} notes are new to the model, which doesn't hear them.`;
    this.showState(`Harmonised.${unknown.length ? left : ""}`);
  }

  /** Return a part's line of the legend. */
  legendOf(part) {
    const item = document.createElement("li");
    const picture = drawnNode("svg", { viewBox: "0 0 36 16", "aria-hidden": "true" });
    const line = { class: `colour-${part % 6}`, x1: 0, x2: 36, y1: 8, y2: 8, "stroke-width": 6 };
    picture.append(drawnNode("line", line));
    item.append(picture, this.network.model.parts[part]);
    return item;
  }

  showState(text) {
    this.by("go").textContent = this.working ? "Cancel" : "Harmonise";
    this.by("progress").hidden = !this.working;
    this.by("progress").value = 0;
    if (text !== undefined) this.say(text);
  }

  say(text) {
    this.by("status").textContent = text;
  }

  // ---- Sound ----

  /** Sound a note that was entered. */
  hear(pitch) {
    this.touched ??= new Voice();
    this.touched.context.resume();
    this.touched.play(pitch, this.touched.context.currentTime, 0.3);
  }

  play() {
    player?.pause();
    for (const audio of document.querySelectorAll("audio")) audio.pause();
    this.voice = new Voice();
    const { context } = this.voice;
    context.resume();
    this.by("listen").textContent = "Stop";
    const perSecond = (this.tempo * QUARTER) / 60;
    const notes = [...this.made.notes].sort((a, b) => a[0] - b[0]);
    const begun = context.currentTime + 0.1;
    const total = this.roll.total;
    const { voice } = this;
    let next = 0;
    const move = () => {
      if (this.voice !== voice) return;
      const position = (context.currentTime - begun) * perSecond;
      while (next < notes.length && notes[next][0] < position + LOOK_AHEAD * perSecond) {
        const [start, end, pitch] = notes[next++];
        voice.play(pitch, begun + start / perSecond, (end - start) / perSecond);
      }
      if (position > total + QUARTER) return this.stop();
      this.roll.draw(notes, position);
    };
    this.timer = setInterval(move, 40);
    move();
  }

  stop() {
    if (!this.voice) return;
    clearInterval(this.timer);
    this.voice.context.close();
    this.voice = null;
    this.by("listen").textContent = "Listen";
    if (this.made) this.roll.draw(this.made.notes, NOWHERE);
  }

  /** Download the voices, each in a track of its name. */
  save() {
    const { notes, bars } = this.made;
    const inOrder = [...notes].sort((a, b) => a[3] - b[3] || a[0] - b[0]);
    const bytes = midiFile(inOrder, this.tempo, bars, this.network.model, this.inSix ? 3 : 2);
    download(bytes, `harmonised-${this.by("seed").value || 0}.mid`);
  }
}
