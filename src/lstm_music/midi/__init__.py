"""MIDI files to pieces and back: bytes, repair, writing, piano rolls."""
