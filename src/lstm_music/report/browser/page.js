"use strict";
// The page: a voice, piano rolls that move with the sound, and what the buttons do.

const LOOK_AHEAD = 1.5; // seconds: timers of a page in the background may sleep for one
const DRAW_AHEAD = BAR; // ticks composed beyond what is heard, to be seen coming
const BUSY = 30; // milliseconds composed at a time, so that the page stays awake

const byId = (id) => document.getElementById(id);
const DATA = JSON.parse(byId("data").textContent);

// ---- Sound ----

/** A simple instrument: a triangle and its octave, struck and dying away. */
class Voice {
  constructor() {
    this.context = new AudioContext();
    this.master = this.context.createGain();
    this.master.gain.value = 0.3;
    const limiter = this.context.createDynamicsCompressor();
    this.master.connect(limiter).connect(this.context.destination);
  }

  /** Sound a MIDI pitch at a time of the context, for so many seconds. */
  play(pitch, at, seconds, velocity = USUAL) {
    const peak = (0.5 * velocity) / USUAL;
    const loudness = this.context.createGain();
    const end = at + Math.max(seconds, 0.08);
    loudness.gain.setValueAtTime(0, at);
    loudness.gain.linearRampToValueAtTime(peak, at + 0.01);
    loudness.gain.setTargetAtTime(0.24 * peak, at + 0.01, 0.4);
    loudness.gain.setTargetAtTime(0, end, 0.06);
    loudness.connect(this.master);
    for (const [type, octave, share] of [["triangle", 1, 0.8], ["sine", 2, 0.2]]) {
      const tone = this.context.createOscillator();
      tone.type = type;
      tone.frequency.value = octave * 440 * 2 ** ((pitch - 69) / 12);
      const part = this.context.createGain();
      part.gain.value = share;
      tone.connect(part).connect(loudness);
      tone.start(at);
      tone.stop(end + 0.4);
    }
  }
}

// ---- Piano rolls ----

const NAMES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];
const PIXELS_A_BAR = 90; // at least; where that is too wide, the roll moves
const NOWHERE = -1; // where nothing sounds
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

class Roll {
  /** total: the ticks of the music, Infinity where it has no end; bars: as Music has them. */
  constructor(canvas, total, bars = []) {
    this.canvas = canvas;
    this.total = total;
    this.bars = bars;
    this.draw([], NOWHERE);
  }

  /** Return the tick at the left edge, and pixels a tick. */
  view(width, position) {
    const scale = Math.max(width / this.total, PIXELS_A_BAR / BAR);
    const shown = width / scale;
    const turned = Math.floor(position / shown) * shown; // page by page
    const past = Math.max(shown / 2, shown - 3 * BAR); // what was heard needs more room
    const moved = STILL.matches ? turned : position - past;
    return [Math.min(Math.max(0, moved), Math.max(0, this.total - shown)), scale];
  }

  /** Draw notes, and the tick that sounds; what sounds is filled with another colour. */
  draw(notes, position) {
    this.drawn = [notes, position];
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const dots = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * dots)) canvas.width = Math.round(width * dots);
    if (canvas.height !== Math.round(height * dots)) canvas.height = Math.round(height * dots);
    const pen = canvas.getContext("2d");
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    const [left, scale] = this.view(width, position);
    const low = notes.reduce((least, note) => Math.min(least, note[2]), 57) - 3;
    const high = notes.reduce((most, note) => Math.max(most, note[2]), 69) + 3;
    const row = height / (high - low + 1);
    const x = (tick) => (tick - left) * scale;
    const y = (pitch) => (high - pitch) * row;
    this.grid(pen, { left, width, height, scale, low, high, x, y, row, colour });
    for (const [start, end, pitch, track] of notes) {
      if (x(end) < 0 || x(start) > width) continue;
      const sounds = start <= position && position < end;
      pen.fillStyle = colour(sounds ? "sounding" : `track-${track % 6}`);
      const long = Math.max(2, (end - start) * scale - 1);
      pen.fillRect(x(start), y(pitch), long, Math.max(2, row - 1));
    }
    pen.fillStyle = colour("playhead");
    pen.fillRect(x(position) - 1, 0, 2, height);
  }

  /** Draw bar lines with their numbers, and the Cs. */
  grid(pen, { left, width, height, scale, low, high, x, y, row, colour }) {
    pen.font = "12px system-ui, sans-serif";
    const right = left + width / scale;
    const last = this.bars.length || Math.ceil(right / BAR);
    for (let bar = 0; bar < last; bar++) {
      const tick = this.bars[bar] ?? bar * BAR;
      if (tick < left - BAR || tick >= right) continue;
      pen.fillStyle = colour("line");
      pen.fillRect(x(tick), 0, 1, height);
      pen.fillStyle = colour("quiet");
      pen.fillText(bar + 1, x(tick) + 4, height - 4);
    }
    for (let pitch = Math.ceil(low / 12) * 12; pitch <= high; pitch += 12) {
      pen.fillStyle = colour("line");
      pen.fillRect(0, y(pitch) + row, width, 1);
      pen.fillStyle = colour("quiet");
      pen.fillText(`${NAMES[pitch % 12]}${pitch / 12 - 1}`, 4, y(pitch) + row - 3);
    }
  }

  redraw() {
    this.draw(...this.drawn);
  }
}

const rolls = [];

/** Make the roll of a canvas, drawn again where the page's size or colours change. */
function makeRoll(canvas, total, bars) {
  const roll = new Roll(canvas, total, bars);
  rolls.push(roll);
  return roll;
}

const redrawAll = () => rolls.forEach((roll) => roll.redraw());
addEventListener("resize", redrawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

// ---- Samples ----

/** Let a sample's roll move with its sound. */
function followSound(figure) {
  const { notes, ticks, tempo, bars } = DATA.samples[figure.dataset.sample];
  const roll = makeRoll(figure.querySelector("canvas"), ticks, bars);
  const audio = figure.querySelector("audio");
  const show = () => {
    const begun = audio && (audio.currentTime > 0 || !audio.paused);
    roll.draw(notes, begun ? (audio.currentTime * tempo * QUARTER) / 60 : NOWHERE);
  };
  const move = () => {
    show();
    if (!audio.paused) requestAnimationFrame(move);
  };
  show();
  if (!audio) return;
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    player?.pause();
    harmoniser?.stop();
    move();
  });
  audio.addEventListener("seeked", show);
}

// ---- Composing ----

class Player {
  constructor() {
    this.networks = new Map();
    this.roll = makeRoll(byId("compose-roll"), Infinity);
    this.fillRuns();
    byId("compose-run").addEventListener("change", () => this.chooseRun());
    byId("compose-primer").addEventListener("change", () => this.startAgain());
    byId("compose-seed").addEventListener("change", () => this.startAgain());
    byId("compose-play").addEventListener("click", () => this.toggle());
    byId("compose-again").addEventListener("click", () => this.startAgain());
    byId("compose-save").addEventListener("click", () => this.save());
    for (const name of ["temperature", "tempo"]) {
      const slider = byId(`compose-${name}`);
      slider.addEventListener("input", () => this.showValue(slider));
      this.showValue(slider);
    }
    setInterval(() => this.tick(), 100);
  }

  get tempo() {
    return Number(byId("compose-tempo").value); // quarter notes per minute
  }

  get playing() {
    return this.voice?.context.state === "running" && !this.paused;
  }

  fillRuns() {
    DATA.models.forEach((model, n) => byId("compose-run").add(new Option(model.name, n)));
    byId("compose-run").closest("div").hidden = DATA.models.length < 2;
    this.chooseRun();
  }

  /** Take another run's model, its openings to begin with, and its tempo. */
  chooseRun() {
    const n = Number(byId("compose-run").value);
    if (!this.networks.has(n)) this.networks.set(n, networkOf(DATA.models[n]));
    this.network = this.networks.get(n);
    const slider = byId("compose-tempo");
    slider.value = this.network.model.tempo;
    this.showValue(slider);
    const openings = this.network.model.primers.map((primer, k) => new Option(primer.name, k));
    byId("compose-primer").replaceChildren(...openings, new Option("nothing, from silence", ""));
    this.startAgain();
  }

  /** Begin from the primer again, with the seed as it stands; silent until played. */
  startAgain() {
    const wasPlaying = this.playing;
    this.voice?.context.close();
    this.voice = null;
    this.paused = true;
    const primer = this.network.model.primers[byId("compose-primer").value || -1];
    this.composer = new Composer(this.network, {
      primer: primer?.music.slice(0, DATA.primer_length),
      seed: Number(byId("compose-seed").value),
    });
    this.roll.bars = this.composer.music.bars;
    this.position = 0; // the tick that is heard
    this.scheduled = 0; // notes given to the voice
    this.waiting = []; // or too early for it
    this.near = []; // that may be in sight
    this.composed = { tokens: 0, seconds: 0 };
    byId("compose-save").disabled = true;
    this.showState("");
    this.roll.draw([], NOWHERE);
    if (wasPlaying) this.play();
  }

  toggle() {
    if (this.paused) this.play();
    else this.pause();
  }

  play() {
    for (const audio of document.querySelectorAll("audio")) audio.pause();
    harmoniser?.stop();
    if (!this.voice) this.voice = new Voice();
    this.voice.context.resume();
    this.heard = this.voice.context.currentTime;
    this.paused = false;
    this.showState("Playing.");
    this.animate();
  }

  pause() {
    if (this.paused) return;
    this.paused = true;
    this.voice.context.suspend();
    this.showState(`Paused in bar ${this.bar}.`);
  }

  get bar() {
    const { bars } = this.composer.music;
    const begun = bars.filter((tick) => tick <= this.position).length;
    return bars.length ? begun : Math.floor(this.position / BAR) + 1;
  }

  /** Move on in time, compose what will soon be heard, and hand it to the voice. */
  tick() {
    if (!this.playing) return;
    const perSecond = (this.tempo * QUARTER) / 60;
    const ahead = LOOK_AHEAD * perSecond;
    this.compose(this.position + ahead + DRAW_AHEAD);
    const now = this.voice.context.currentTime;
    const notes = this.composer.notes;
    // Where the network is slower than the music, the music waits.
    const heard = this.position + (now - this.heard) * perSecond;
    this.position = Math.min(heard, this.composer.music.ready);
    this.heard = now;
    const due = Math.min(this.position + ahead, this.composer.music.ready);
    const waiting = [];
    for (const note of this.waiting.concat(notes.slice(this.scheduled))) {
      if (note[0] >= due) waiting.push(note);
      else this.sound(note, now, perSecond);
    }
    this.scheduled = notes.length;
    this.waiting = waiting;
    const far = 16 * BAR;
    this.near = notes.filter((n) => n[1] > this.position - far && n[0] < this.position + far);
    byId("compose-save").disabled = !notes.length;
    this.showFacts();
  }

  /** Sound a note. */
  sound([start, end, pitch, , velocity], now, perSecond) {
    const wait = Math.max(0, start - this.position) / perSecond;
    this.voice.play(pitch, now + wait, (end - start) / perSecond, velocity);
  }

  /** Compose until all is known up to a tick, or for as long as the page can spare. */
  compose(until) {
    const begun = performance.now();
    const { composer, composed } = this;
    composer.temperature = Number(byId("compose-temperature").value);
    while (composer.music.ready < until && performance.now() - begun < BUSY) {
      composer.step();
      composed.tokens++;
    }
    composed.seconds += (performance.now() - begun) / 1000;
  }

  animate() {
    if (!this.playing && !this.paused) return void requestAnimationFrame(() => this.animate());
    if (this.paused) return;
    const since = this.voice.context.currentTime - this.heard;
    const position = this.position + (since * this.tempo * QUARTER) / 60;
    this.roll.draw(this.near, Math.min(position, this.composer.music.ready));
    requestAnimationFrame(() => this.animate());
  }

  // What is shown

  showState(text) {
    byId("compose-play").textContent = this.paused ? "Play" : "Pause";
    byId("compose-status").textContent = text;
  }

  /** Show what changes all the time, which no screen reader should read out. */
  showFacts() {
    const { tokens, seconds } = this.composed;
    const ofFrames = ["chord", "note"].includes(this.network.model.representation);
    const unit = ofFrames ? "frames" : "tokens";
    const speed = seconds ? Math.round(tokens / seconds).toLocaleString("en") : "–";
    const waits = this.composer.music.ready <= this.position ? " · composing what comes next…" : "";
    const count = `${tokens.toLocaleString("en")} ${unit} composed`;
    byId("compose-facts").textContent = `Bar ${this.bar} · ${count}, ${speed} a second${waits}`;
  }

  showValue(slider) {
    byId(`${slider.id}-value`).textContent = slider.value;
  }

  /** Download what was composed so far. */
  save() {
    const { notes, music, model } = this.composer;
    const bytes = midiFile(notes, this.tempo, music.bars, model);
    download(bytes, `composed-${byId("compose-seed").value || 0}.mid`);
  }
}

// ---- Begin ----

const player = byId("compose-run") && DATA.models.length ? new Player() : null;
const harmoniser = byId("harmonise-go") ? new Harmoniser() : null;
document.querySelectorAll("[data-sample]").forEach(followSound);
