"use strict";
/* The listening test: a clip, its rating, the next one. All text goes in as text, never as markup. */
(() => {
  const by = (id) => document.getElementById(id);
  const audio = by("audio");
  const PLAY = "M7 4l14 8-14 8z";
  const PAUSE = "M6 4h4v16H6zM14 4h4v16h-4z";
  const ENOUGH = 0.98; // of a clip: what counts as heard to its end
  let study = null;
  let place = 0;
  let address = null;
  let heardAll = false;
  let busy = false;

  function say(text) { by("status").textContent = text; }

  function show(id, focus) {
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
    by(focus).focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  function fill(name, value) {
    for (const element of document.querySelectorAll(`[data-${name}]`)) element.textContent = value;
  }

  function makeScale() {
    for (let score = 1; score <= 10; score++) {
      const label = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name: "score", value: String(score) });
      input.addEventListener("change", chosen);
      const face = document.createElement("b");
      face.textContent = String(score);
      label.append(input, face);
      const words = study.anchors[score];
      if (words) {
        input.setAttribute("aria-label", `${score}: ${words}`);
        const item = document.createElement("li");
        const number = document.createElement("b");
        number.textContent = `${score} `;
        item.append(number, words);
        by("anchors").append(item);
      }
      by("scale").append(label);
    }
    by("anchors").setAttribute("aria-hidden", "true"); // said by the numbers themselves
  }

  const picked = () => document.querySelector("input[name=score]:checked");

  function chosen() { by("next").disabled = busy || !heardAll || !picked(); }

  async function go(scores) {
    place = scores.length;
    by("done").max = study.clips;
    by("done").value = place;
    if (place >= study.clips) return finish();
    heardAll = false;
    by("scores").disabled = true;
    for (const input of document.querySelectorAll("input[name=score]")) input.checked = false;
    chosen();
    by("hint").textContent = "Listen to the whole clip; then you can rate it.";
    by("which").textContent = `Clip ${place + 1} of ${study.clips}`;
    document.title = `Clip ${place + 1} of ${study.clips}`;
    by("play").disabled = true;
    show("clip", "which");
    const sound = await api.clip(place);
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(sound);
    audio.src = address;
    by("play").disabled = false;
    progress();
  }

  function heard() {
    let seconds = 0;
    for (let n = 0; n < audio.played.length; n++) seconds += audio.played.end(n) - audio.played.start(n);
    return seconds;
  }

  function progress() {
    const length = audio.duration || study.seconds;
    const now = audio.ended ? length : audio.currentTime;
    by("heard").max = length;
    by("heard").value = now;
    by("time").textContent = `${Math.floor(now)} of ${Math.round(length)} seconds`;
    const playing = !audio.paused && !audio.ended;
    by("sign").setAttribute("d", playing ? PAUSE : PLAY);
    by("play-name").textContent = playing ? "Pause" : heardAll ? "Play the clip again" : "Play the clip";
    if (!heardAll && audio.duration && heard() >= ENOUGH * audio.duration) {
      heardAll = true;
      by("scores").disabled = false;
      by("hint").textContent = "Now rate it. You may listen again first.";
      chosen();
    }
  }

  function toggle() {
    if (by("play").disabled) return;
    if (audio.paused || audio.ended) audio.play().catch(() => say("The browser can't play this clip."));
    else audio.pause();
  }

  function finish() {
    audio.pause();
    document.title = "Thank you";
    by("kept").textContent = api.kept;
    by("comment").maxLength = study.mostComment;
    offer();
    show("end", "thanks");
  }

  function offer() {
    const file = api.file();
    if (!file) return;
    const link = document.createElement("a");
    link.className = "button";
    link.textContent = "Download my ratings";
    link.download = file.name;
    link.href = URL.createObjectURL(new Blob([file.content], { type: "application/json" }));
    by("download").replaceChildren(link);
  }

  /* Runs a step that is never run twice at once; what it can't do is said. */
  async function step(work) {
    if (busy) return;
    busy = true;
    chosen();
    try {
      await work();
    } catch (error) {
      if (error.status === 401) location.reload();
      else say(error.message);
    } finally {
      busy = false;
      chosen();
    }
  }

  by("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    step(async () => { say(""); await go(await api.begin(by("code").value)); });
  });
  by("rate").addEventListener("submit", (event) => {
    event.preventDefault();
    const input = picked();
    if (!heardAll || !input) return;
    step(async () => {
      audio.pause();
      const seconds = Math.round(1000 * heard()) / 1000;
      const scores = await api.rate(place, Number(input.value), seconds);
      say(`Clip ${place + 1} is saved.`);
      await go(scores);
    });
  });
  by("say").addEventListener("submit", (event) => {
    event.preventDefault();
    step(async () => {
      await api.comment(by("comment").value);
      say("Your comment is saved.");
      offer();
    });
  });
  by("play").addEventListener("click", toggle);
  for (const name of ["timeupdate", "play", "pause", "ended", "loadedmetadata"]) audio.addEventListener(name, progress);
  document.addEventListener("keydown", (event) => {
    if (by("clip").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
    const on = document.activeElement;
    if (event.key === " " && !(on instanceof HTMLButtonElement)) {
      event.preventDefault();
      toggle();
    } else if (/^[0-9]$/.test(event.key) && heardAll) {
      const wanted = event.key === "0" ? "10" : event.key;
      const input = document.querySelector(`input[name=score][value="${wanted}"]`);
      input.checked = true;
      input.focus();
      chosen();
    } else if (event.key === "Enter" && on instanceof HTMLInputElement && on.name === "score") {
      event.preventDefault();
      by("rate").requestSubmit();
    }
  });

  step(async () => {
    api.says = say;
    study = await api.about();
    fill("clips", study.clips);
    fill("seconds", Math.round(study.seconds));
    const minutes = Math.ceil((study.clips * (study.seconds + 8)) / 60);
    fill("minutes", minutes === 1 ? "a minute" : `${minutes} minutes`);
    by("title").textContent = study.title;
    document.title = study.title;
    by("code-line").hidden = !study.token;
    by("code").required = Boolean(study.token);
    by("code").value = decodeURIComponent(/^#token=(.*)$/.exec(location.hash)?.[1] ?? "");
    makeScale();
    const scores = await api.resume();
    if (scores) await go(scores);
    else show("welcome", "title");
  });
})();
