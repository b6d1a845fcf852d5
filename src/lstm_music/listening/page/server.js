"use strict";
/* What the page asks of the server. Whatever fails for a while is asked again. */
const api = (() => {
  let key = null;
  let place = "";

  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  async function ask(path, body, says) {
    const headers = {};
    if (key) headers["X-Rater"] = key;
    if (body) headers["Content-Type"] = "application/json";
    const how = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) };
    for (let pause = 500; ; pause = Math.min(2 * pause, 5000)) {
      let answer = null;
      try {
        answer = await fetch(path, how);
        if (answer.ok) {
          const content = path.startsWith("/api/clip/") ? await answer.blob() : await answer.json();
          if (says) says("");
          return content;
        }
      } catch {
        answer = null; // no connection, or it broke off
      }
      if (answer && answer.status !== 429 && answer.status < 500) {
        const said = await answer.json().catch(() => ({}));
        throw Object.assign(new Error(said.error || answer.statusText), { status: answer.status });
      }
      if (says) says("No answer from the server: trying again …");
      await wait(pause * (0.5 + Math.random()));
    }
  }

  return {
    says: null,
    async about() {
      const study = await ask("/api/study", null, this.says);
      place = `lstm-music-${study.study}`;
      try { key = localStorage.getItem(place); } catch { key = null; }
      return study;
    },
    async resume() {
      if (!key) return null;
      try {
        return (await ask("/api/session", null, this.says)).scores;
      } catch (error) {
        if (error.status !== 401) throw error;
        key = null;
        return null;
      }
    },
    async begin(token) {
      const made = await ask("/api/begin", { consent: true, token }, this.says);
      key = made.rater;
      try { localStorage.setItem(place, key); } catch { /* then it can't be resumed */ }
      return made.scores;
    },
    clip(number) { return ask(`/api/clip/${number}`, null, this.says); },
    async rate(number, score, heard) {
      return (await ask("/api/rate", { place: number, score, heard }, this.says)).scores;
    },
    comment(text) { return ask("/api/comment", { comment: text }, this.says); },
    kept: "All your ratings are saved. You can close this page.",
    file() { return null; },
  };
})();
