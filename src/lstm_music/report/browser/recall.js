"use strict";
// What a piece has said before that may come again: network/recall.py, line by line. Its names are
// its own; a page needs newRecall, observe, bucket and codeOf. Lists grow with the piece.

const recalling = (() => {
  const [MATCH, LATEST, MOVED, OPENING, LAGS] = [0, 1, 2, 3, 4]; // candidates
  const OF_PHRASES = 3;
  const [REST, PITCH, OPENS, AT, DELTA, RANK, VOICE] = [0, 1, 2, 3, 4, 5, 6]; // of a row of a word table
  const [PLACE, BAR_LINE, TRACK_END, CADENCE, NOTE_ON, NOTE_OFF] = [0, 1, 2, 3, 4, 5]; // of OPENS
  const PITCHES = 129; // that a word's code tells apart
  const RANKS = 8192; // words that may stand at one place
  const TRACK = 2 ** 45;
  const SHIFT = 256; // what a difference of pitches is raised by
  const NONE = -1;
  const [NEWEST, FARTHEST] = [32, 64]; // places that a search looks at, words that it compares
  const SLOTS = 4096;
  const LONG = 10;
  const BUCKETS = 13;

  /** Return a piece before its first word. rules: as report/browser_model.py writes them. */
  function newRecall(rules) {
    const K = LAGS + rules.lags.length + rules.phrases;
    return {
      codes: [],
      moved: [],
      times: [],
      heads: [MATCH, LATEST, MOVED].map(() => new Int32Array(SLOTS).fill(NONE)),
      before: [[], [], []],
      pointers: new Array(K).fill(NONE),
      candidates: new Array(K).fill(NONE),
      runs: new Array(K).fill(0),
      count: 0,
      base: 0,
      atPlace: 0,
      pitchBefore: 0,
      line: NONE,
      lag: 0,
      trackBegan: 0,
      trackTime: 0,
      length: 0,
      meter: NONE,
      phraseLag: 0,
      closes: 0,
      first: NONE,
      began: NONE,
      beganAt: 0,
      phrases: 0,
      opened: 0,
      fresh: false,
      freshPhrase: false,
      sounds: new Set(),
    };
  }

  // ---- Words as numbers ----

  const codeOf = (word) => word[REST] * PITCHES + word[PITCH] + 1;

  function measured(m, same, word) {
    const code = codeOf(word);
    if (word[OPENS] === BAR_LINE) {
      if (code === same && m.meter !== NONE) return m.meter;
      m.meter = code;
    }
    return code;
  }

  const said = (m, same, code) => (code === m.meter ? same : code);

  function movedCode(code, pitchBefore) {
    const pitch = (code % PITCHES) - 1;
    const rest = (code - pitch - 1) / PITCHES;
    return rest * 2 * SHIFT + (pitch >= 0 ? pitch - pitchBefore + SHIFT : 0);
  }

  function unmoved(code, pitchBefore) {
    const difference = code % (2 * SHIFT);
    const rest = (code - difference) / (2 * SHIFT);
    if (difference === 0) return rest * PITCHES;
    const pitch = pitchBefore + difference - SHIFT;
    return 0 <= pitch && pitch < PITCHES - 1 ? rest * PITCHES + pitch + 1 : NONE;
  }

  function bucket(run, back) {
    let [n, stop] = [0, LONG - 1];
    if (run >= back) {
      run = Math.floor(run / Math.max(back, 1));
      [n, stop] = [LONG - 1, BUCKETS - 1];
    }
    while (run > 0 && n < stop) {
      run = Math.floor(run / 2);
      n++;
    }
    return n;
  }

  function bucketOf(m, k) {
    const [run, back] = [m.runs[MATCH], m.count - m.pointers[MATCH]];
    if (m.candidates[k] === m.candidates[MATCH] && run >= back) return bucket(run, back);
    return bucket(m.runs[k], m.count - m.pointers[k]);
  }

  // ---- One word ----

  function stepTime(m, word) {
    if (word[OPENS] === BAR_LINE) {
      m.base += m.length * RANKS;
      m.length = word[AT] || m.length;
      m.atPlace = 0;
    } else if (word[AT] >= 0) m.atPlace = word[AT];
    m.atPlace += word[DELTA];
    return m.base + m.atPlace * RANKS + word[RANK];
  }

  function slotOf(codes, n, order) {
    let h = 0;
    for (let k = n - order + 1; k <= n; k++) h = (h * 40503 + codes[k]) % SLOTS;
    return h;
  }

  function matched(codes, q, n) {
    let length = 0;
    while (length < FARTHEST && length <= q && codes[q - length] === codes[n - length]) length++;
    return length;
  }

  function notePlace(m, kind, codes, order) {
    const n = m.count - 1;
    if (n + 1 < order) return NONE;
    const slot = slotOf(codes, n, order);
    const last = m.heads[kind][slot];
    m.before[kind][n] = last;
    m.heads[kind][slot] = n;
    return last;
  }

  function follow(m, kind, codes, order) {
    const n = m.count - 1;
    let q = notePlace(m, kind, codes, order);
    const p = m.pointers[kind];
    if (p >= 0 && codes[p] === codes[n]) {
      m.pointers[kind] = p + 1;
      m.runs[kind]++;
      return;
    }
    let [best, looked] = [order - 1, 0];
    m.pointers[kind] = NONE;
    while (q >= 0 && looked < NEWEST) {
      if (q >= best && codes[q - best] === codes[n - best]) {
        const length = matched(codes, q, n);
        if (length > best) {
          best = length;
          m.pointers[kind] = q + 1;
        }
      }
      q = m.before[kind][q];
      looked++;
    }
    m.runs[kind] = m.pointers[kind] >= 0 ? best : 0;
  }

  function followLag(m, k, lag, time, same) {
    const n = m.count;
    let p = Math.max(m.pointers[k], m.trackBegan);
    m.candidates[k] = NONE;
    if (lag > 0 && time - lag >= m.trackTime) {
      while (p < n && m.times[p] <= time - lag) p++;
      if (p < n) m.candidates[k] = said(m, same, m.codes[p]);
    }
    m.pointers[k] = p;
  }

  function openAtLines(m, line) {
    const atLine = line ? m.base + Math.floor(m.atPlace / line) * line * RANKS : m.base;
    if (atLine !== m.line) {
      m.line = atLine;
      if (m.runs[OPENING] === 0) {
        m.lag = atLine - m.trackTime;
        m.pointers[OPENING] = m.trackBegan;
      }
    }
  }

  function misses(m, k, word) {
    const told = m.candidates[k];
    const tells = word[OPENS] === NOTE_ON && told >= 0 && Math.floor(told / PITCHES) === word[REST];
    return tells && told !== codeOf(word);
  }

  const openingOf = (m) => (m.opened ? m.runs.length - OF_PHRASES + m.opened : OPENING);

  function openPhrases(m, word) {
    const [last, opening] = [m.runs.length - OF_PHRASES, openingOf(m)];
    if (word[OPENS] === NOTE_OFF) m.sounds.delete(word[VOICE]);
    if (word[OPENS] === NOTE_ON) {
      m.sounds.add(word[VOICE]);
      m.fresh = m.freshPhrase = false;
    }
    if (misses(m, opening, word)) m.lag = 0;
    if (misses(m, last, word)) m.phraseLag = 0;
    if (word[OPENS] === CADENCE) m.closes = 1;
    if (word[OPENS] !== PLACE || word[AT] < 0) return;
    const [place, begins] = [m.base + m.atPlace * RANKS, m.closes === 1];
    m.phrases += begins;
    if (begins && m.lag === 0) {
      [m.lag, m.fresh] = [place - m.first, true];
      m.opened = m.phrases === 2 || m.phrases === 3 ? m.phrases - 1 : 0;
      m.candidates[opening] = NONE;
      m.pointers[openingOf(m)] = 0;
    }
    if (begins && m.phraseLag === 0) {
      [m.phraseLag, m.freshPhrase] = [place - m.began, true];
      m.pointers[last] = m.beganAt;
    }
    if (m.first === NONE) m.first = place;
    if (begins || m.began === NONE) [m.began, m.beganAt] = [place, m.count - 1];
    m.closes = 0;
  }

  function followOpenings(m, time, same) {
    const [last, opening] = [m.runs.length - OF_PHRASES, openingOf(m)];
    followLag(m, opening, m.lag, time, same);
    followLag(m, last, m.phraseLag, time, same);
    if (m.sounds.size && m.fresh) m.candidates[opening] = NONE;
    if (m.sounds.size && m.freshPhrase) m.candidates[last] = NONE;
  }

  /** Take the next word of a piece, and find the candidates for the one after it. */
  function observe(rules, m, word) {
    const [told, same, n] = [codeOf(word), rules.same, m.count];
    for (let k = 0; k < m.runs.length; k++) {
      if (k !== MATCH && k !== MOVED) m.runs[k] = m.candidates[k] === told ? m.runs[k] + 1 : 0;
    }
    const code = measured(m, same, word);
    m.codes[n] = code;
    m.moved[n] = movedCode(code, m.pitchBefore);
    let time = stepTime(m, word);
    m.times[n] = time;
    if (n === m.trackBegan) m.trackTime = m.base;
    m.count = n + 1;
    if (word[PITCH] >= 0) m.pitchBefore = word[PITCH];
    if (word[OPENS] === TRACK_END) {
      m.base = m.trackTime = m.trackTime + TRACK;
      m.atPlace = 0;
      m.trackBegan = n + 1;
      m.line = NONE;
      time = m.base;
    }
    follow(m, MATCH, m.codes, rules.orders[MATCH]);
    let p = m.pointers[MATCH];
    m.candidates[MATCH] = p >= 0 ? said(m, same, m.codes[p]) : NONE;
    follow(m, MOVED, m.moved, rules.orders[MOVED]);
    p = m.pointers[MOVED];
    m.candidates[MOVED] = p >= 0 ? said(m, same, unmoved(m.moved[p], m.pitchBefore)) : NONE;
    const q = notePlace(m, LATEST, m.codes, rules.orders[LATEST]);
    const was = q >= 0 && matched(m.codes, q, n) >= rules.orders[LATEST];
    m.pointers[LATEST] = was ? q + 1 : NONE;
    m.candidates[LATEST] = was ? said(m, same, m.codes[q + 1]) : NONE;
    if (rules.phrases) {
      openPhrases(m, word);
      followOpenings(m, time, same);
    } else {
      openAtLines(m, rules.line);
      followLag(m, OPENING, m.lag, time, same);
    }
    const unit = Math.max(m.length, 1) * RANKS;
    rules.lags.forEach((lag, k) => followLag(m, LAGS + k, lag * unit, time, same));
  }

  return { newRecall, observe, bucketOf, codeOf, PITCHES, NONE };
})();
