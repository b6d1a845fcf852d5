// The rules of bin/sample on the device: which words may follow, and what a word changes. The automaton
// of src/lstm_music/sampling/rules.py with its table, line by line; a block takes one piece, and a thread
// of it one pitch of each part.
#include "common.cuh"
#include "rules_table.cuh"

// In longest: the places of events that may come lie between two numbers, behind the notes' classes.
__device__ __forceinline__ int class_of(int kind, int note, int notes) { return NOTES + kind * notes + note; }
__device__ __forceinline__ int places_at(int notes) { return NOTES + 3 * notes; }
#define AFTER places_at(rules.notes)
#define BEFORE (AFTER + 1)

// Each of the notes that are a thread's own. What sounds of them no other thread reads or writes.
#define EACH_NOTE(note) for (int note = threadIdx.x; note < rules.notes; note += PITCHES)

// What may follow. Everything but places, which are a range, is as in Rules of sampling/rules.py.
struct Words {
    const int* kinds;
    const int* numbers;
    const int* steps;
    const int* classes;
    const int* deltas;
    const int* shortest;
    const int* places;
    int V, P;
};

// Lengths -----------------------------------------------------------------------------------------

__device__ __forceinline__ void begin(const Rules& rules, Piece& piece, int* sounding)
{
    piece.phase = rules.phase;
    piece.now = piece.notes = piece.tracks = 0;
    piece.primed_tracks = piece.primed_notes = 0;
    piece.least = rules.least;
    piece.bar = piece.measure;
    piece.line = piece.bars = 0;
    piece.begin = piece.length = piece.heard = piece.part = 0;
    piece.rank = piece.struck = piece.closed = SILENT;
    EACH_NOTE(note) sounding[note] = SILENT;
}

__device__ __forceinline__ int next_bar(const Piece& piece)
{
    const int since = piece.now + (piece.struck == piece.now) - piece.line, bar = piece.bar;
    return piece.line + (since > 0 ? (since + bar - 1) / bar : since / bar) * bar;
}

__device__ __forceinline__ int bars_in(const Piece& piece)
{
    return piece.bars + (next_bar(piece) - piece.line) / piece.bar;
}

__device__ __forceinline__ bool is_over(const Rules& rules, const Piece& piece)
{
    const bool ended = SILENT < piece.closed && piece.closed < piece.now && piece.struck <= piece.closed;
    return ended && 0 < rules.longest_piece && rules.longest_piece <= piece.now;
}

__device__ __forceinline__ int limit_of(const Rules& rules, const Piece& piece)
{
    if (piece.asked_bars < 0 && piece.asked_ticks < 0) return is_over(rules, piece) ? piece.now : NO_LIMIT;
    if (piece.asked_bars < 0) return max(piece.asked_ticks - piece.before, 0);
    int bar = piece.bar;
    if (rules.events && piece.bars == 0 && piece.line == piece.begin) bar = max(bar, WHOLE_NOTE);
    const long long bars = piece.asked_bars - piece.bars_before - piece.bars;
    const long long end = piece.line + bars * bar;
    return end < 0 ? 0 : end < FAR ? (int)end : FAR;
}

__device__ __forceinline__ bool is_empty(const Piece& piece)
{
    return piece.tracks == piece.primed_tracks && piece.notes == piece.primed_notes;
}

__device__ __forceinline__ bool is_early(const Piece& piece)
{
    return piece.tracks == piece.primed_tracks && piece.now < piece.least;
}

__device__ __forceinline__ bool may_end(const Rules& rules, const Piece& piece)
{
    const int limit = limit_of(rules, piece);
    if (piece.asked_tokens >= 0) return piece.asked_tokens - piece.tokens > 1;
    if (rules.frame_ticks > 0 && limit >= 0) return !is_empty(piece) && next_bar(piece) < limit;
    return limit >= 0 || !is_early(piece);
}

__device__ __forceinline__ bool leaves_room(const Rules& rules, const Piece& piece)
{
    if (piece.asked_tokens >= 0) return piece.asked_tokens - piece.tokens > 1;
    const int limit = limit_of(rules, piece);
    const int least = rules.frame_ticks > 0 ? 1 : piece.bar;
    return rules.merged && limit >= 0 && limit - next_bar(piece) >= least;
}

__device__ __forceinline__ bool is_full(const Rules& rules, const Piece& piece)
{
    if (piece.tokens == piece.asked_tokens || piece.tokens == piece.most) return true;
    const int limit = limit_of(rules, piece);
    return rules.frame_ticks > 0 && limit >= 0 && piece.now >= limit;
}

// What may come -----------------------------------------------------------------------------------

__device__ __forceinline__ int facts_of_piece(const Rules& rules, const Piece& piece, int limit, bool ends)
{
    const bool composed = !is_empty(piece);
    const bool last_quarter = limit < 0 || limit - piece.now <= TICKS_PER_QUARTER;
    const bool track_done = last_quarter || (piece.tracks > 0 && piece.now == 0);
    const bool full = ends && composed && piece.tracks >= rules.max_tracks;
    const int bar = max(piece.begin + piece.length, piece.now);
    const bool heard = piece.notes > 0 && bar <= piece.heard + rules.longest_note;
    return COMPOSED * composed
        | MAY_END * ends
        | LONG_ENOUGH * !is_early(piece)
        | LAST_QUARTER * last_quarter
        | TRACK_DONE * track_done
        | TRACK_ROOM * !full
        | HEARD_LATELY * heard;
}

__device__ __forceinline__ int first_in_order(int rank, int kind)
{
    if (rank < 0) return 0;
    const int part = rank / (3 * PITCHES), last = rank / PITCHES % 3;
    if (kind > last) return part * PITCHES;
    if (kind == last && kind != MOVE) return part * PITCHES + rank % PITCHES + 1;
    return (part + 1) * PITCHES;
}

__device__ __forceinline__ int facts_of_note(const Piece& piece, int began, int note, int kind)
{
    return SOUNDS * (began != SILENT)
        | STRUCK_BEFORE * (began != piece.now)
        | IN_ORDER * (note >= first_in_order(piece.rank, kind));
}

// The note that a number in a word stands for: the first are those of the part told.
__device__ __forceinline__ int note_of(const Piece& piece, int number)
{
    return number < PITCHES ? number + piece.part : number;
}

__device__ __forceinline__ bool hold(int facts, int needs) { return (facts & needs) == needs; }

__device__ __forceinline__ void allow_notes(
    const Rules& rules, const Piece& piece, const int* sounding, int limit, int facts, int* longest)
{
    const int left = limit >= 0 ? limit - piece.now : FAR;
    for (int kind = 0; kind <= NOTE_ON; kind++) {
        const int needs = NEEDS[piece.phase][kind];
        EACH_NOTE(note) {
            const int began = sounding[note_of(piece, note)];
            int stays = left - (kind != NOTE_OFF);
            if (kind == NOTE_OFF && (needs & SOUNDS)) {
                const int age = began + rules.longest_note - piece.now;
                stays = rules.events ? age : min(left, age);
            }
            const bool may = hold(facts | facts_of_note(piece, began, note, kind), needs);
            longest[class_of(kind, note, rules.notes)] = may ? stays : NEVER;
        }
    }
}

__device__ __forceinline__ bool any_stops_at(
    const Rules& rules, const Words& words, const int* sounding, int tick, int* scratch)
{
    int stop = 0;
    EACH_NOTE(note) {
        const int told = min(
            words.shortest[class_of(NOTE_OFF, note, rules.notes)],
            words.shortest[class_of(NOTE_OFF, note % rules.told, rules.notes)]);
        const bool can_stop = sounding[note] != SILENT && told < NONE;
        stop += can_stop && sounding[note] + rules.longest_note >= tick;
    }
    return block_sum(stop, scratch) > 0;
}

__device__ __forceinline__ void allow_times(
    const Rules& rules, const Words& words, const Piece& piece, const int* sounding, int limit, int facts,
    int* longest, int* scratch)
{
    const int place = NEEDS[piece.phase][PLACE], bar_line = NEEDS[piece.phase][BAR_LINE];
    int latest = min(limit >= 0 ? limit : FAR, LAST_TICK);
    latest -= !any_stops_at(rules, words, sounding, latest, scratch);
    if (threadIdx.x != 0) return;
    longest[AFTER] = piece.phase == AFTER_BAR ? -1 : piece.now - piece.begin;
    longest[BEFORE] = hold(facts, place) ? min(piece.length, latest - piece.begin + 1) : NEVER;
    const int first_place = words.P > 0 ? words.places[0] : FAR;
    const bool fits = max(piece.begin + piece.length, piece.now) + first_place <= latest;
    const int same = piece.length > first_place ? UNTOLD : TOLD;
    longest[BARS] = fits && hold(facts, bar_line) ? same : NEVER;
}

__device__ __forceinline__ void allow_shifts(
    const Rules& rules, const Words& words, const Piece& piece, const int* sounding, int limit, int facts,
    int* longest, int* scratch)
{
    const int* needs = NEEDS[piece.phase];
    int latest = min(limit >= 0 ? limit : FAR, LAST_TICK);
    latest -= !any_stops_at(rules, words, sounding, latest, scratch);
    if (threadIdx.x != 0) return;
    latest = min(latest, piece.heard + rules.longest_pause);
    const bool begins = limit < 0 || piece.now < limit;
    longest[SHIFTS] = hold(facts, needs[SHIFT]) ? latest - piece.now : NEVER;
    longest[VELOCITIES] = begins && hold(facts, needs[VELOCITY]) ? 0 : NEVER;
    longest[PARTS] = begins && hold(facts, needs[PART]) ? 0 : NEVER;
}

__device__ __forceinline__ bool any_within(
    const Rules& rules, const Words& words, const int* longest, int first, int stop, int* scratch)
{
    int count = 0;
    for (int c = first + threadIdx.x; c < stop; c += blockDim.x) count += words.shortest[c] <= longest[c];
    if (stop == places_at(rules.notes))
        for (int k = threadIdx.x; k < words.P; k += blockDim.x)
            count += longest[AFTER] < words.places[k] && words.places[k] < longest[BEFORE];
    return block_sum(count, scratch) > 0;
}

__device__ __forceinline__ bool any_begins(const Rules& rules, const Words& words, const int* longest, int* scratch)
{
    const bool begins = any_within(rules, words, longest, CHORDS, NOTES, scratch);
    const int moves = class_of(MOVE, 0, rules.notes), stop = places_at(rules.notes);
    return any_within(rules, words, longest, moves, stop, scratch) || begins;
}

__device__ __forceinline__ void allow(
    const Rules& rules, const Words& words, const Piece& piece, const int* sounding, int limit, bool ends,
    int* longest, int* scratch)
{
    const int facts = facts_of_piece(rules, piece, limit, ends);
    allow_notes(rules, piece, sounding, limit, facts, longest);
    if (rules.events) allow_times(rules, words, piece, sounding, limit, facts, longest, scratch);
    else if (threadIdx.x == 0) longest[BARS] = longest[AFTER] = longest[BEFORE] = NEVER;
    if (rules.longest_pause >= 0) allow_shifts(rules, words, piece, sounding, limit, facts, longest, scratch);
    else if (threadIdx.x == 0) longest[SHIFTS] = longest[VELOCITIES] = longest[PARTS] = NEVER;
    if (threadIdx.x == 0) {
        const int* needs = NEEDS[piece.phase];
        longest[KEYS] = hold(facts, needs[KEY]) ? 0 : NEVER;
        longest[CADENCES] = hold(facts, needs[CADENCE]) ? 0 : NEVER;
        longest[CHORDS] = hold(facts, needs[CHORD]) ? 0 : NEVER;
        longest[TRACK_ENDS] = hold(facts, needs[TRACK_END]) ? 0 : NEVER;
        longest[PIECE_ENDS] = hold(facts, needs[PIECE_END]) ? 0 : NEVER;
    }
    __syncthreads();  // all classes are known
    if (!any_within(rules, words, longest, 0, places_at(rules.notes), scratch) && threadIdx.x == 0) {
        const bool in_track = piece.phase == IN_TRACK && words.shortest[TRACK_ENDS] < NONE;
        longest[in_track ? TRACK_ENDS : PIECE_ENDS] = 0;
    }
    __syncthreads();  // and so is the way out
}

__device__ __forceinline__ void longest_deltas(
    const Rules& rules, const Words& words, const Piece& piece, const int* sounding, int* longest, int* scratch)
{
    const bool ends = may_end(rules, piece);
    const int limit = rules.frame_ticks > 0 ? NO_LIMIT : limit_of(rules, piece);
    allow(rules, words, piece, sounding, limit, ends, longest, scratch);
    if (is_empty(piece) && !any_begins(rules, words, longest, scratch))
        allow(rules, words, piece, sounding, NO_LIMIT, ends, longest, scratch);
}

// allowed (N, V): 1 for each word that may follow. pieces (N,), sounding (N, notes): the start tick of each
// note that sounds, else SILENT. Dynamic shared memory: an int for each class but places, and two.
extern "C" __global__ void rules_forward(
    const Rules* all_rules, const int* kinds, const int* numbers, const int* steps, const int* classes,
    const int* deltas, const int* shortest, const int* places, int V, int P, const Piece* pieces,
    const int* sounding, unsigned char* allowed)
{
    SHARED_ARRAY(int, longest);
    __shared__ int scratch[32];
    const int n = blockIdx.x, p = threadIdx.x;
    const Rules rules = *all_rules;
    const Words words = {kinds, numbers, steps, classes, deltas, shortest, places, V, P};
    const Piece piece = pieces[n];
    if (piece.ended) return;
    longest_deltas(rules, words, piece, sounding + (size_t)n * rules.notes, longest, scratch);
    for (int v = p; v < V; v += blockDim.x) {
        const int c = classes[v], place = c < AFTER ? NEVER : places[c - AFTER];
        allowed[(size_t)n * V + v] =
            c < AFTER ? deltas[v] <= longest[c] : longest[AFTER] < place && place < longest[BEFORE];
    }
}

// What a word changes -----------------------------------------------------------------------------

__device__ __forceinline__ void open_bar(Piece& piece, int length)
{
    int missing = piece.begin - piece.line;
    if (piece.bars == 0 && missing == 0 && length > piece.length) missing = piece.length;
    else piece.bars++;
    piece.begin = piece.now;
    piece.line = piece.begin - missing;
    piece.length = piece.bar = length;
}

__device__ __forceinline__ int rank_of(int kind, int note)
{
    return kind <= NOTE_ON ? (note / PITCHES * 3 + kind) * PITCHES + note % PITCHES : -1;
}

__device__ __forceinline__ void tidy(
    const Rules& rules, const Piece& piece, int* sounding, int* scratch, uint64* first)
{
    int sound = 0;
    EACH_NOTE(note) {
        const int began = sounding[note];
        if (began != SILENT && began < piece.now && began + rules.rings <= piece.now) sounding[note] = SILENT;
        sound += sounding[note] != SILENT;
    }
    for (int voices = block_sum(sound, scratch); voices > rules.most_notes; voices--) {
        uint64 own = 0;
        EACH_NOTE(note)
            if (sounding[note] != SILENT) own = max(own, ~((uint64)sounding[note] * rules.notes + note));
        const uint64 oldest = ~block_max(own, first);
        if ((int)(oldest / rules.notes) == piece.now) break;
        EACH_NOTE(note)
            if (note == (int)(oldest % rules.notes)) sounding[note] = SILENT;
    }
}

__device__ __forceinline__ void advance(
    const Rules& rules, const Words& words, Piece& piece, int* sounding, int id, int* scratch, uint64* first)
{
    const int kind = words.kinds[id], number = words.numbers[id];
    piece.phase = NEXT[piece.phase][kind];
    piece.rank = rank_of(kind, number);
    if (kind == TRACK_END) {
        piece.tracks++;
        piece.now = piece.notes = 0;
        piece.struck = SILENT;
        EACH_NOTE(note) sounding[note] = SILENT;
        return;
    }
    int to = piece.now + words.steps[id];
    if (kind == PLACE) to = max(piece.begin + number, piece.now);
    else if (kind == BAR_LINE) to = max(piece.begin + piece.length, piece.now);
    piece.now = min(to, LAST_TICK);
    if (kind == BAR_LINE) {
        open_bar(piece, number > 0 ? number : piece.length > 0 ? piece.length : WHOLE_NOTE);
    } else if (kind <= CHORD) {
        piece.heard = piece.now;
        piece.notes += kind != NOTE_OFF;
    }
    if (kind == CADENCE) piece.closed = piece.now;
    if (kind == MOVE) sounding[number / PITCHES * PITCHES + threadIdx.x] = SILENT;
    if (kind == PART) piece.part = number;
    if (kind <= NOTE_ON) {
        if (kind != NOTE_OFF) piece.struck = piece.now;
        if (threadIdx.x == number % PITCHES) sounding[note_of(piece, number)] = kind == NOTE_OFF ? SILENT : piece.now;
    }
    tidy(rules, piece, sounding, scratch, first);
}

__device__ __forceinline__ bool extend(
    const Rules& rules, const Words& words, Piece& piece, int* sounding, int id, int* scratch, uint64* first)
{
    const bool taken = id != rules.start || leaves_room(rules, piece);
    if (id != rules.start) {
        advance(rules, words, piece, sounding, id, scratch, first);
    } else if (taken) {
        piece.bars_before += bars_in(piece);
        piece.before += next_bar(piece);
        begin(rules, piece, sounding);
    }
    piece.tokens += taken;
    if (!taken || is_full(rules, piece)) piece.ended = 1;
    return taken;
}

// Take the word drawn, or the primer's next: primers (N, primer_stride), of which row n has primed[n]. next (N,),
// out (most, N) and done (N,) are those of sample_forward. h, c (L, N, H): cleared where another piece begins.
extern "C" __global__ void rules_advance(
    const Rules* all_rules, const int* kinds, const int* numbers, const int* steps, const int* classes,
    const int* deltas, const int* shortest, const int* places, int V, int P, Piece* pieces, int* sounding,
    const int* primers, const int* primed, int primer_stride, const int* position, int* next, int* out, int* done,
    REAL* h, REAL* c, int L, int H)
{
    __shared__ int scratch[32];
    __shared__ uint64 first[32];
    const int n = blockIdx.x, N = gridDim.x, p = threadIdx.x, t = *position;
    const Rules rules = *all_rules;
    const Words words = {kinds, numbers, steps, classes, deltas, shortest, places, V, P};
    Piece piece = pieces[n];
    if (piece.ended) return;
    const int id = t < primed[n] ? primers[(size_t)n * primer_stride + t] : next[n];
    sounding += (size_t)n * rules.notes;
    __syncthreads();  // all have read what one will overwrite

    const bool taken = extend(rules, words, piece, sounding, id, scratch, first);
    if (taken && id == rules.start) {
        for (int k = p; k < L * H; k += blockDim.x) {
            const size_t at = ((size_t)(k / H) * N + n) * H + k % H;
            h[at] = 0, c[at] = 0;
        }
    }
    if (p != 0) return;
    out[(size_t)t * N + n] = taken ? id : -1;
    pieces[n] = piece;
    next[n] = id;
    done[n] = piece.ended;
}
