// What pieces in the making have said that may come again, and whether it does: src/lstm_music/network/recall.py line by
// line, and the choice of sampling/copying.py.
//
// A block takes one piece: a warp each for the longest match, the match but for a transposition, and the last place after
// the same words; in a fourth, a lane each for the opening and the places some bars before. A warp compares 32 words at
// once, so that a search of 32 places is as many waits for the L2 cache, and those bound it.
#include "common.cuh"

// As in network/recall.py and ops/reference/copying.py.
constexpr int MATCH = 0;
constexpr int LATEST = 1;
constexpr int MOVED = 2;
constexpr int OPENING = 3;
constexpr int OF_PHRASES = 3;
constexpr int REST = 0;
constexpr int PITCH = 1;
constexpr int OPENS = 2;
constexpr int AT = 3;
constexpr int DELTA = 4;
constexpr int RANK = 5;
constexpr int VOICE = 6;
constexpr int FIELDS = 7;
constexpr int PLACE = 0;
constexpr int BAR_LINE = 1;
constexpr int TRACK_END = 2;
constexpr int CADENCE = 3;
constexpr int NOTE_ON = 4;
constexpr int NOTE_OFF = 5;
constexpr int BITS = 48;
constexpr int PITCHES = 129;
constexpr int RANKS = 8192;
constexpr long long TRACK = 35184372088832;
constexpr int SHIFT = 256;
constexpr int NONE = -1;
constexpr int NEWEST = 32;
constexpr int FARTHEST = 64;
constexpr int SLOTS = 4096;
constexpr int LONG = 10;
constexpr int BUCKETS = 13;

struct Numbers {
    long long count, base, at_place, pitch_before, line, lag, track_began, track_time, length, meter;
};

// Of words that tell of phrases: for one thread, which leaves them in memory.
struct Phrases {
    long long phrase_lag, closes, first, began, began_at, phrases, opened, fresh, fresh_phrase;
    long long sounds[3];
};

struct Place {
    Numbers numbers;
    Phrases phrases;
};

struct Recall {
    int *codes, *moved;  // (room,)
    long long* times;    // (room,)
    int *heads, *before;  // (3, SLOTS), (3, room)
    int *pointers, *candidates, *runs;  // (K,)
    Place* place;
    int room, K;
};

__device__ __forceinline__ void forget(const Recall& m)
{
    for (int slot = threadIdx.x; slot < 3 * SLOTS; slot += blockDim.x) m.heads[slot] = NONE;
    for (int k = threadIdx.x; k < m.K; k += blockDim.x) m.pointers[k] = m.candidates[k] = NONE, m.runs[k] = 0;
    if (threadIdx.x != 0) return;
    *m.place = Place();
    m.place->numbers.line = m.place->numbers.meter = m.place->phrases.first = m.place->phrases.began = NONE;
}

// Words as numbers --------------------------------------------------------------------------------

__device__ __forceinline__ int code_of(const int* word) { return word[REST] * PITCHES + word[PITCH] + 1; }

__device__ __forceinline__ int measured(Numbers& numbers, int same, const int* word)
{
    const int code = code_of(word);
    if (word[OPENS] != BAR_LINE) return code;
    if (code == same && numbers.meter != NONE) return (int)numbers.meter;
    numbers.meter = code;
    return code;
}

__device__ __forceinline__ int said(const Numbers& numbers, int same, int code)
{
    return code == numbers.meter ? same : code;
}

__device__ __forceinline__ int moved_code(int code, int pitch_before)
{
    const int rest = code / PITCHES, pitch = code % PITCHES - 1;
    return rest * 2 * SHIFT + (pitch >= 0 ? pitch - pitch_before + SHIFT : 0);
}

__device__ __forceinline__ int unmoved(int code, int pitch_before)
{
    const int rest = code / (2 * SHIFT), difference = code % (2 * SHIFT);
    if (difference == 0) return rest * PITCHES;
    const int pitch = pitch_before + difference - SHIFT;
    return 0 <= pitch && pitch < PITCHES - 1 ? rest * PITCHES + pitch + 1 : NONE;
}

__device__ __forceinline__ int bucket(int run, int back)
{
    int n = 0, stop = LONG - 1;
    if (run >= back) run /= max(back, 1), n = LONG - 1, stop = BUCKETS - 1;
    for (; run > 0 && n < stop; ++n) run /= 2;
    return n;
}

// One word ----------------------------------------------------------------------------------------

__device__ __forceinline__ long long step_time(Numbers& numbers, const int* word)
{
    if (word[OPENS] == BAR_LINE) {
        numbers.base += numbers.length * RANKS, numbers.at_place = 0;
        if (word[AT] > 0) numbers.length = word[AT];
    } else if (word[AT] >= 0) {
        numbers.at_place = word[AT];
    }
    numbers.at_place += word[DELTA];
    return numbers.base + numbers.at_place * RANKS + word[RANK];
}

__device__ __forceinline__ int slot_of(const int* codes, int n, int order)
{
    int h = 0;
    for (int k = n - order + 1; k <= n; ++k) h = (h * 40503 + codes[k]) % SLOTS;
    return h;
}

// For a whole warp, as the next two: how many words up to places q and n are the same.
__device__ __forceinline__ int matched(const int* codes, int q, int n)
{
    for (int first = 0; first < FARTHEST; first += 32) {
        const int k = first + threadIdx.x % 32;
        const bool same = k <= q && codes[q - k] == codes[n - k];
        const uint32 others = ~__ballot_sync(FULL_WARP, same);
        if (others) return first + __ffs(others) - 1;
    }
    return FARTHEST;
}

__device__ __forceinline__ int note_place(const Recall& m, int kind, const int* codes, int n, int order)
{
    if (n + 1 < order) return NONE;
    const int slot = kind * SLOTS + slot_of(codes, n, order), last = m.heads[slot];
    __syncwarp();  // all lanes have read it
    if (threadIdx.x % 32 == 0) m.before[kind * m.room + n] = last, m.heads[slot] = n;
    return last;
}

// The place of the next word of the match, or NONE.
__device__ __forceinline__ int follow(const Recall& m, int kind, const int* codes, int n, int order)
{
    int q = note_place(m, kind, codes, n, order);
    int to = m.pointers[kind], run = m.runs[kind];
    if (to >= 0 && codes[to] == codes[n]) {
        ++to, ++run;
    } else {
        int best = order - 1;
        to = NONE;
        for (int looked = 0; q >= 0 && looked < NEWEST; ++looked) {
            const int before = m.before[kind * m.room + q];  // on its way while words are compared
            const int length = matched(codes, q, n);
            if (length > best) best = length, to = q + 1;
            q = before;
        }
        run = to >= 0 ? best : 0;
    }
    __syncwarp();  // all lanes have read where the match stood
    if (threadIdx.x % 32 == 0) m.pointers[kind] = to, m.runs[kind] = run;
    return to;
}

__device__ __forceinline__ void follow_lag(
    const Recall& m, const Numbers& numbers, int k, long long lag, long long time, int same)
{
    const int n = (int)numbers.count;
    int p = max(m.pointers[k], (int)numbers.track_began), found = NONE;
    if (lag > 0 && time - lag >= numbers.track_time) {
        while (p < n && m.times[p] <= time - lag) ++p;
        if (p < n) found = said(numbers, same, m.codes[p]);
    }
    m.candidates[k] = found, m.pointers[k] = p;
}

__device__ __forceinline__ void open_at_lines(const Recall& m, Numbers& numbers, int line)
{
    const long long at_line =
        line ? numbers.base + numbers.at_place / line * line * RANKS : numbers.base;
    if (at_line == numbers.line) return;
    numbers.line = at_line;
    if (m.runs[OPENING] == 0) numbers.lag = at_line - numbers.track_time, m.pointers[OPENING] = (int)numbers.track_began;
}

__device__ __forceinline__ bool misses(const Recall& m, int k, const int* word)
{
    const int told = m.candidates[k];
    return word[OPENS] == NOTE_ON && told >= 0 && told / PITCHES == word[REST] && told != code_of(word);
}

__device__ __forceinline__ int opening_of(const Recall& m, const Phrases& phrases)
{
    return phrases.opened ? m.K - OF_PHRASES + (int)phrases.opened : OPENING;
}

__device__ __forceinline__ void open_phrases(
    const Recall& m, Numbers& numbers, Phrases& phrases, const int* word)
{
    const int last = m.K - OF_PHRASES, opening = opening_of(m, phrases);
    if (word[OPENS] == NOTE_ON || word[OPENS] == NOTE_OFF) {
        const long long bit = 1LL << word[VOICE] % BITS;
        long long& sounds = phrases.sounds[word[VOICE] / BITS];
        sounds = word[OPENS] == NOTE_ON ? sounds | bit : sounds & ~bit;
        if (word[OPENS] == NOTE_ON) phrases.fresh = phrases.fresh_phrase = 0;
    }
    if (misses(m, opening, word)) numbers.lag = 0;
    if (misses(m, last, word)) phrases.phrase_lag = 0;
    if (word[OPENS] == CADENCE) phrases.closes = 1;
    if (word[OPENS] != PLACE || word[AT] < 0) return;
    const long long place = numbers.base + numbers.at_place * RANKS;
    const bool begins = phrases.closes == 1;
    phrases.phrases += begins;
    if (begins && numbers.lag == 0) {
        numbers.lag = place - phrases.first, phrases.fresh = 1;
        phrases.opened = phrases.phrases == 2 || phrases.phrases == 3 ? phrases.phrases - 1 : 0;
        m.candidates[opening] = NONE;
        m.pointers[opening_of(m, phrases)] = 0;
    }
    if (begins && phrases.phrase_lag == 0)
        phrases.phrase_lag = place - phrases.began, phrases.fresh_phrase = 1, m.pointers[last] = (int)phrases.began_at;
    if (phrases.first == NONE) phrases.first = place;
    if (begins || phrases.began == NONE) phrases.began = place, phrases.began_at = numbers.count - 1;
    phrases.closes = 0;
}

__device__ __forceinline__ void follow_openings(
    const Recall& m, const Numbers& numbers, const Phrases& phrases, long long time, int same)
{
    const int last = m.K - OF_PHRASES, opening = opening_of(m, phrases);
    follow_lag(m, numbers, opening, numbers.lag, time, same);
    follow_lag(m, numbers, last, phrases.phrase_lag, time, same);
    if (!phrases.sounds[0] && !phrases.sounds[1] && !phrases.sounds[2]) return;
    if (phrases.fresh) m.candidates[opening] = NONE;
    if (phrases.fresh_phrase) m.candidates[last] = NONE;
}

__device__ __forceinline__ void count_run(const Recall& m, int k, int code)
{
    m.runs[k] = m.candidates[k] == code ? m.runs[k] + 1 : 0;
}

// Takes the word next[n] of each of N pieces that isn't done, and finds the candidates for the one after it; at `start`
// another piece begins. words (V, FIELDS), lags (K - 4 - phrases,), orders of MATCH, LATEST and MOVED, line, phrases, same:
// as in RecallRules. All else is as in Recall, one after another for each piece. Four warps.
extern "C" __global__ void __launch_bounds__(128) recall_advance(
    const int* words, const long long* lags, int order_match, int order_latest, int order_moved, int line, int phrases,
    int same, int K, int room, int* codes, int* moved, long long* times, int* heads, int* before, int* pointers, int* candidates,
    int* runs, Place* places, const int* next, const int* done, int start)
{
    const size_t piece = blockIdx.x;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, id = next[piece];
    if (done[piece]) return;
    const Recall m = {
        codes + piece * room, moved + piece * room, times + piece * room, heads + piece * 3 * SLOTS,
        before + piece * 3 * room, pointers + piece * K, candidates + piece * K, runs + piece * K,
        places + piece, room, K};
    if (id == start) {
        forget(m);
        return;
    }
    const int* word = words + (size_t)id * FIELDS;
    Numbers numbers = m.place->numbers;
    const int told = code_of(word), code = measured(numbers, same, word), n = (int)numbers.count;
    const int own_moved = moved_code(code, (int)numbers.pitch_before);
    long long time = step_time(numbers, word);
    if (threadIdx.x == 0) m.codes[n] = code, m.moved[n] = own_moved, m.times[n] = time;
    if (n == numbers.track_began) numbers.track_time = numbers.base;
    numbers.count = n + 1;
    if (word[PITCH] >= 0) numbers.pitch_before = word[PITCH];
    if (word[OPENS] == TRACK_END) {
        numbers.base = numbers.track_time = numbers.track_time + TRACK;
        numbers.at_place = 0, numbers.track_began = n + 1, numbers.line = NONE;
        time = numbers.base;
    }
    __syncthreads();  // the word stands there, and all have read the numbers
    if (warp == 0) {
        const int p = follow(m, MATCH, m.codes, n, order_match);
        if (lane == 0) m.candidates[MATCH] = p >= 0 ? said(numbers, same, m.codes[p]) : NONE;
    } else if (warp == 1) {
        const int p = follow(m, MOVED, m.moved, n, order_moved);
        if (lane != 0) return;
        const int found = p >= 0 ? unmoved(m.moved[p], (int)numbers.pitch_before) : NONE;
        m.candidates[MOVED] = p >= 0 ? said(numbers, same, found) : NONE;
    } else if (warp == 2) {
        const int q = note_place(m, LATEST, m.codes, n, order_latest);
        const bool was = q >= 0 && matched(m.codes, q, n) >= order_latest;
        if (lane != 0) return;
        count_run(m, LATEST, told);
        m.pointers[LATEST] = was ? q + 1 : NONE;
        m.candidates[LATEST] = was ? said(numbers, same, m.codes[q + 1]) : NONE;
    } else {
        const long long unit = max(numbers.length, 1LL) * RANKS;
        for (int k = OPENING + 1 + lane; k < K - phrases; k += 32) {
            count_run(m, k, told);
            follow_lag(m, numbers, k, lags[k - OPENING - 1] * unit, time, same);
        }
        if (lane != 0) return;
        count_run(m, OPENING, told);
        if (phrases) {
            for (int k = K - phrases; k < K; ++k) count_run(m, k, told);
            open_phrases(m, numbers, m.place->phrases, word);
            follow_openings(m, numbers, m.place->phrases, time, same);
        } else {
            open_at_lines(m, numbers, line);
            follow_lag(m, numbers, OPENING, numbers.lag, time, same);
        }
        m.place->numbers = numbers;
    }
}

// Whether to copy ---------------------------------------------------------------------------------

struct Chooser {
    const REAL* scores;  // (K,)
    const double* table;  // (K, BUCKETS)
    const int *candidates, *runs, *pointers, *ids;  // (K,), and (codes,)
    const Place* place;
    const unsigned char* allowed;  // (V,)
    int codes, K;

    // The word of candidate k that may come, or NONE.
    __device__ __forceinline__ int word(int k) const
    {
        const int code = candidates[k], id = code == NONE || code >= codes ? NONE : ids[code];
        return id != NONE && allowed[id] ? id : NONE;
    }

    __device__ __forceinline__ int back(int k) const { return (int)place->numbers.count - pointers[k]; }
    __device__ __forceinline__ bool came_round(int k) const { return runs[k] >= back(k); }

    __device__ __forceinline__ double score(int k) const
    {
        const int from = candidates[k] == candidates[MATCH] && came_round(MATCH) ? MATCH : k;
        return (double)scores[k] + table[k * BUCKETS + bucket(runs[from], back(from))];
    }
};

// The word whose candidates together are likeliest, if likelier than the network, or NONE.
__device__ __forceinline__ int likeliest(const Chooser& c)
{
    int best = NONE;
    double most = 1;
    for (int k = 0; k < c.K; ++k) {
        const int id = c.word(k);
        double sum = 0;
        for (int other = 0; id != NONE && other < c.K; ++other)
            if (c.word(other) == id) sum += exp(fmin(c.score(other), 700.0));
        if (sum > most) most = sum, best = id;
    }
    return best;
}

// The word to copy by a number u, or NONE; u becomes the number by which the network's own is drawn.
__device__ __forceinline__ int copied_word(const Chooser& c, double temperature, double top_p, double& u)
{
    double top = 0, total = 0;
    for (int k = 0; k < c.K; ++k)
        if (c.word(k) != NONE) top = fmax(top, c.score(k));
    for (int k = 0; k < c.K; ++k)
        if (c.word(k) != NONE) total += exp((c.score(k) - top) / temperature);
    if (total == 0) return NONE;
    double own = exp(-top / temperature);
    if (own < (1 - top_p) * (own + total)) own = 0;
    double left = u * (own + total);
    if (left < own) {
        u = fmin(left / own, 1 - 1.0 / 9007199254740992.0);
        return NONE;
    }
    left -= own;
    int id = NONE;
    for (int k = 0; k < c.K; ++k) {
        if (c.word(k) == NONE) continue;
        id = c.word(k);
        const double weight = exp((c.score(k) - top) / temperature);
        if (left < weight) break;
        left -= weight;
    }
    return id;
}

// Of each of N pieces: copied (N,), the word that it copies, or NONE; draws (N,): the number by which sample_forward is
// to draw where it doesn't. scores (N, K), table (K, BUCKETS): what a run adds to them; ids (codes,): of the code of a word, its id; allowed (N, V).
// The random numbers are those of sample_forward. A thread takes one piece.
extern "C" __global__ void recall_choose(
    const REAL* scores, const double* table, const int* candidates, const int* runs, const int* pointers,
    const Place* places, const int* ids, int codes, const unsigned char* allowed, int V, double temperature,
    double top_p, int greedy, uint32 k0, uint32 k1, uint32 first, const int* position, int* copied, double* draws, int N, int K)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= N) return;
    const Chooser c = {
        scores + (size_t)n * K, table, candidates + (size_t)n * K, runs + (size_t)n * K,
        pointers + (size_t)n * K, ids, places + n, allowed + (size_t)n * V, codes, K};
    double u = uniform(*position, first + n, k0, k1);
    copied[n] = greedy ? likeliest(c) : copied_word(c, temperature, top_p, u);
    draws[n] = u;
}
