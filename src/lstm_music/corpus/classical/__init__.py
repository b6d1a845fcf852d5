"""The corpus of many composers, built from the scores that music21 brings."""
