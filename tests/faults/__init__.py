"""The fault programme: `python tests/faults`; tests run a short part of it."""
