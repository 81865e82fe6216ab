"""The kinds of malformed input, by name."""

from attacks import http_requests, pictures, readers, runs
from attacks.fuzzing import Fuzz

KINDS: dict[str, Fuzz] = {
    fuzz.name: fuzz
    for fuzz in (
        runs.CONFIGS,
        runs.CHECKPOINTS,
        runs.RECORDS,
        *readers.FUZZES,
        http_requests.FUZZ,
        pictures.FUZZ,
    )
}
