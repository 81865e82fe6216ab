# Everything lives in .venv, made on first use from python3 and constraints.txt.
.PHONY: demo test lint clean

.venv/ready: pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/ready

demo: .venv/ready
	rm -rf runs/demo
	.venv/bin/monge train wae-mmd --data digits --out runs/demo

test: .venv/ready
	.venv/bin/python -m pytest

lint: .venv/ready
	.venv/bin/ruff check src tests benchmarks examples
	.venv/bin/ruff format --check src tests benchmarks examples
	.venv/bin/pyright

clean:
	rm -rf .venv runs
