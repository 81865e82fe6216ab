"""Random inputs at the edges of floating point: a right value, or a ValueError that names an
argument; never another exception, never NaN or infinity, never a warning but of convergence.

The suite tries over 200 cases. `python tests/test_fuzz.py 10000` tries that many and writes their
counts to benchmarks/fuzz.json.
"""

import collections
import json
import random
import re
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_cases import CHOICES, ROUNDING, Case, made
from fuzz_subjects import POWERS, SUBJECTS, TRANSPORT
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = 5
"""Of each function: over 200 in all."""


def steepest(name: str, case: Case) -> float:
    """The largest slope, in float64."""
    x, y = (z.double().requires_grad_() for z in (case.x, case.y))
    value = SUBJECTS[name](case._replace(x=x, y=y))[0]
    slopes = torch.autograd.grad(value, (x, y), allow_unused=True)
    return max(float(s.abs().max()) for s in slopes if s is not None)


def outcome(name: str, case: Case) -> tuple[str, str]:
    """What became of a case, one of `GOOD` or what was wrong, with words."""
    x, y = (z.clone().requires_grad_() for z in (case.x, case.y))
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            value, expected, doubt = SUBJECTS[name](case._replace(x=x, y=y))
        except ValueError as error:
            named = re.match(r".*`\w+`", str(error))
            return ("refused" if named else "unnamed", str(error))
        except AssertionError as error:
            return "wrong", str(error)
        except Exception as error:
            return "exception", f"{error!r} {traceback.format_exc()[-300:]!r}"
    strange = [str(w.message) for w in caught if "stopped after" not in str(w.message)]
    if strange:
        return "warning", strange[0]
    if value is None:
        return "refused", "too few samples"
    found, most = float(value.detach()), torch.finfo(x.dtype).max
    given = all(torch.isfinite(z).all() for z in (x, y))
    if not given and name not in TRANSPORT and not np.isfinite(found):
        return "propagated", ""
    if not np.isfinite(found):
        beyond = expected is not None and name in POWERS and expected > most / 4
        beyond |= expected == found  # Kullback-Leibler's is infinite off the support
        return ("overflow" if beyond else "not finite", f"{found} for {expected}")
    if value.requires_grad:
        slopes = torch.autograd.grad(value, (x, y), allow_unused=True)
        if not all(s is None or torch.isfinite(s).all() for s in slopes):
            steep = name not in TRANSPORT and steepest(name, case) > most / 4
            return "overflow" if steep else "gradient", f"not finite at the value {found}"
    if caught:
        return "warned", ""
    if expected is None or doubt == np.inf:
        return "finite", ""
    # numbers below the normal ones have few digits
    tiny = len(x) * torch.finfo(x.dtype).tiny
    allowed = ROUNDING[case.x.dtype] * abs(expected) + doubt + tiny
    if abs(found - expected) <= allowed:
        return "right", ""
    return "wrong", f"{found} for {expected}, allowed {allowed}"


GOOD = ("right", "finite", "warned", "refused", "overflow", "propagated")
"""As the reference has it; finite where there is none; short of convergence and saying so; with a
ValueError; infinite as the true power or slope is; NaN or infinite as a divergence's samples."""


@pytest.mark.parametrize("name", SUBJECTS)
@settings(max_examples=CASES)
@given(choice=st.fixed_dictionaries({k: st.sampled_from(v) for k, v in CHOICES.items()}))
def test_fuzz(name, choice):
    what, words = outcome(name, made(choice))
    assert what in GOOD, words


def main(total: int) -> None:
    """Tries cases of all functions in turn, prints what is wrong and writes the counts."""
    source, counts = random.Random(0), collections.defaultdict(collections.Counter)
    said = collections.Counter()
    names = list(SUBJECTS)
    for k in range(total):
        name = names[k % len(names)]
        choice = {key: source.choice(values) for key, values in CHOICES.items()}
        what, words = outcome(name, made(choice))
        counts[name][what] += 1
        if what == "refused":
            said[re.sub(r"-?\d[\d.e+-]*", "#", words)[:70]] += 1
        elif what not in GOOD:
            print(name, what, words, choice, flush=True)
    result = {"cases": total, "counts": counts, "refusals": said}
    path = Path(__file__).parents[1] / "benchmarks" / "fuzz.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main(int(sys.argv[1]))
