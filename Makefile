# Everything lives in .venv, made on first use from python3 and constraints.txt. Each target installs
# what it needs and no more: .venv/EXTRA.ready stands for an extra of pyproject.toml.
.PHONY: demo test test-slow test-kernels test-all test-oldest gpu lint docs lock audit release clean
.NOTPARALLEL:

.venv/bin/python:
	python3 -m venv .venv

EXTRAS = explore test docs lint kernels dev
$(EXTRAS:%=.venv/%.ready): .venv/%.ready: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing monge[$*] into .venv: a minute or two the first time, since PyTorch comes with it"
	.venv/bin/python -m pip install --quiet $(PIP_$*) --constraint constraints.txt --editable ".[$*]"
	touch $@

# Python compiles what the demo imports; pip would compile all of PyTorch, two thirds of its time
PIP_explore = --no-compile

# threads that sleep while they wait, since other programs may need the cores
demo: .venv/explore.ready
	rm -rf runs/demo
	@echo "drawing 20,000 letters and digits, then training alpha-gan on them: about 75 seconds"
	OMP_WAIT_POLICY=passive .venv/bin/monge train alpha-gan --data glyphs --condition labels --steps 600 --threads 2 --out runs/demo
	@echo "explorer: .venv/bin/monge explore runs/demo --browser"
	@echo "next:     .venv/bin/monge sample runs/demo --class A g 8 --out letters.png"

# a process a core, one thread each
test: .venv/test.ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto -m "not slow and not browser and not faults"

# The book is among what it tests. Faults, and a browser, have the machine to themselves.
test-slow: .venv/test.ready .venv/docs.ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto -m "slow and not browser and not faults"
	.venv/bin/python -m pytest -m "browser or faults"

# Triton's kernels on a machine without a GPU: interpreted against the CPU's, then compiled for GPUs
test-kernels: .venv/test.ready .venv/kernels.ready
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto -m kernels
	.venv/bin/python -m pytest tests/kernels/test_compiled.py

test-all: test test-slow test-kernels

# The oldest versions that pyproject.toml allows, in an environment of their own. CI does not run it:
# without PyTorch's CPU index (PIP_EXTRA_INDEX_URL) it downloads gigabytes. Old packages warn.
OLDEST = tests/test_transport.py tests/test_divergences.py tests/test_maps.py tests/test_data.py tests/test_tables.py tests/test_cli.py
test-oldest:
	python3 -m venv .venv-oldest
	python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
	  | sed 's/>=/==/' > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --requirement .venv-oldest/oldest.txt pytest hypothesis
	.venv-oldest/bin/python -m pip install --quiet --no-deps --editable .
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -m "not slow" -o filterwarnings=ignore::DeprecationWarning $(OLDEST)

# on a machine with a GPU and any Python with torch and triton: six minutes (benchmarks/gpu.py)
PYTHON ?= python3
gpu:
	$(PYTHON) benchmarks/gpu.py

lint: .venv/lint.ready
	.venv/bin/ruff check src tests benchmarks examples book_markdown.py release.py
	.venv/bin/ruff format --check src tests benchmarks examples book_markdown.py release.py
	.venv/bin/pyright

docs: .venv/docs.ready
	.venv/bin/python -m zensical build --clean --strict
	cp -r examples site

# Hashes of what constraints.txt names. On Linux torch is the CPU build, of CPython 3.11 on x86-64:
# it lies in PyTorch's own index, and that of PyPI would need CUDA's libraries.
TORCH_CPU = 6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
lock: .venv/bin/python
	.venv/bin/python -m pip install --quiet uv
	{ sed -n '/^#/p' requirements.lock; .venv/bin/uv pip compile --quiet --generate-hashes \
	  --no-deps --no-header --no-annotate --python-version 3.11.9 constraints.txt \
	  | sed "s/^\(torch==[^ ]*\) .*/\1+cpu ; sys_platform == 'linux' --hash=sha256:$(TORCH_CPU)\n\1 ; sys_platform != 'linux' \\\\/"; } > .venv/requirements.lock
	mv .venv/requirements.lock requirements.lock

# compares the versions with known vulnerabilities; needs a network
audit: .venv/bin/python
	.venv/bin/python -m pip install --quiet pip-audit
	.venv/bin/pip-audit --requirement requirements.lock --disable-pip

# a wheel and an archive of sources in dist/, checked and not uploaded
release: .venv/bin/python
	.venv/bin/python -m pip install --quiet --constraint constraints.txt hatchling twine
	.venv/bin/python release.py

clean:
	rm -rf .venv .venv-oldest dist runs site
