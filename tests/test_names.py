import os
import shutil
import subprocess

import pytest

from lstm_music.rendering.html import tag
from lstm_music.untrusted import printable, typeable

NAMES = [b"plain", b"a b", b"it's", b"d\xfcr", b"d\xc3\xbcr", b"a\nb", b"\x1b[2J", b"\\", b"'\xff'",
         b"\xfcab", b"$HOME", b"-n"]  # fmt: skip


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("name", NAMES)
def test_the_shell_reads_what_is_to_be_typed_as_the_name(name, shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    word = typeable(os.fsdecode(name))
    assert word.isprintable()
    said = subprocess.run(
        [shell, "-c", f"printf '%s' {word}"], check=True, capture_output=True
    ).stdout  # fmt: skip
    assert said == name


def test_a_plain_name_is_typed_as_it_is():
    assert [typeable(name) for name in ("runs/a", "a b", "dür")] == ["runs/a", "'a b'", "'dür'"]


def test_what_is_no_text_is_shown_in_its_place():
    assert printable(os.fsdecode(b"d\xfcr")) == "d\ufffdr"
    assert printable("dür") == "dür"
    made = tag("p", os.fsdecode(b"<\xfc>"), title=os.fsdecode(b"\xff&"))
    assert made == '<p title="\ufffd&amp;">&lt;\ufffd&gt;</p>'
