"use strict";
/* The study without a server: clips are in the page, ratings stay in this browser. */
const api = (() => {
  const study = JSON.parse(document.getElementById("data").textContent);
  const place = `lstm-music-${study.study}`;
  let kept = null;

  function load() {
    try { kept = JSON.parse(localStorage.getItem(place)); } catch { kept = null; }
  }
  function save() {
    try { localStorage.setItem(place, JSON.stringify(kept)); } catch { /* then it can't be resumed */ }
  }
  const scores = () => kept.ratings.map((rating) => rating.score);
  const order = () => {
    const row = study.rows[kept.row];
    return row.concat(row.slice(0, study.repeats));
  };
  function random(below) {
    return crypto.getRandomValues(new Uint32Array(1))[0] % below;
  }
  function name() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  return {
    says: null,
    async about() { load(); return study; },
    async resume() { return kept && kept.ratings ? scores() : null; },
    async begin() {
      const now = Date.now() / 1000;
      kept = { study: study.study, rater: name(), row: random(study.rows.length), begun: now, ratings: [], comment: "" };
      save();
      return [];
    },
    async clip(number) {
      const text = atob(study.sounds[order()[number]]);
      const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
      return new Blob([bytes], { type: "audio/wav" });
    },
    async rate(number, score, heard) {
      if (number === kept.ratings.length) {
        const clip = study.ids[order()[number]];
        kept.ratings.push({ clip, score, heard, at: Date.now() / 1000 });
        save();
      }
      return scores();
    },
    async comment(text) { kept.comment = text; save(); },
    kept: "Your ratings are saved in this browser. Please download them and send the file to whoever asked you.",
    file() {
      const content = JSON.stringify(Object.assign({ format: 1 }, kept), null, 1);
      return { name: `ratings-${kept.rater.slice(0, 8)}.json`, content };
    },
  };
})();
