"""A few cases of every kind of malformed input; `python tests/attacks` tries thousands."""

import random
import sys

import pytest

from attacks.fuzzing import Fuzz, attacked, mutated
from attacks.kinds import KINDS

CASES = 60
"""Of each kind."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="hangs are ended by SIGALRM")


@pytest.mark.parametrize("name", KINDS)
def test_malformed_input_is_accepted_or_refused_in_one_line(name, tmp_path):
    tally = attacked(KINDS[name], tmp_path / "work", CASES)
    assert tally.faults == []
    assert tally.refused > 0


def test_what_is_wrong_is_counted(tmp_path):
    def case(folder, rng):
        what = rng.randrange(5)
        if what == 0:
            raise ValueError("two\nlines")
        if what == 1:
            raise KeyError("x")
        if what == 2:
            raise ValueError("`x` must be y")
        if what == 3:
            (folder.parent / "outside" / "new").touch()

    tally = attacked(Fuzz("wrong", lambda folder: folder, case), tmp_path / "work", 40)
    assert tally.cases == 40
    assert tally.accepted + tally.refused + len(tally.faults) == 40
    for words in ("control characters", "KeyError", "wrote 'new' outside"):
        assert any(words in fault for fault in tally.faults)


def test_mutations_are_of_the_seed():
    one, other = (mutated(b"some content", random.Random(3)) for _ in range(2))
    assert one == other != b"some content"
