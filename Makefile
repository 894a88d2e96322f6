# make paper: everything, from images to Table 2; make test: every check; make lab: the notebooks
# make paper DATA=clothing, or DATA=folder ROOT=photos/ [CSV=labels.csv] [PROTOCOL=natural]: on photographs
PYTHON ?= python3.11
CORES ?= all
# as typed after make, not what the environment happens to call ROOT
typed = $(if $(findstring command,$(origin $1)),$($1))
export FASHION_VAE_DATA := $(call typed,DATA)
export FASHION_VAE_ROOT := $(call typed,ROOT)
export FASHION_VAE_CSV := $(call typed,CSV)
export FASHION_VAE_PROTOCOL := $(call typed,PROTOCOL)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: paper test lab sync notebooks lock

paper: .venv/installed
	@PYTHONPATH=workflow snakemake --profile workflow/profiles/local --cores $(CORES)
	@python workflow/show.py

test: .venv/installed
	python tests/in_sync.py
	ruff check
	pytest -q
	nbdev_test --timing

lab: .venv/installed
	jupyter lab nbs

# After an edit: notebooks -> fashion_vae/, and notebooks cleaned
sync: .venv/installed
	nbdev_clean
	nbdev_export

# The committed outputs: run every notebook where it stands, without progress bars
notebooks: .venv/installed
	TQDM_DISABLE=1 jupyter nbconvert --to notebook --execute --inplace nbs/*.ipynb
	$(MAKE) sync

# New versions of everything, with hashes; needs uv
lock:
	uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-emit-index-url --no-header --extra photos --extra dev setup.py -o requirements.lock

.venv/installed: requirements.lock settings.ini setup.py
	$(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
