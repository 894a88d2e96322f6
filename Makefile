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

OWN = FASHION_VAE_CSV= FASHION_VAE_PROTOCOL=
SNAKEMAKE = PYTHONPATH=workflow snakemake --profile workflow/profiles/local --cores $(CORES)

.PHONY: paper evidence test soak bench lab sync notebooks lock

paper: .venv/installed
	@$(SNAKEMAKE)
	@python workflow/show.py

# What part of the gain is the VAE: verdicts and figures from the committed rows; RERUN=1 makes the rows again
evidence: .venv/installed
ifdef RERUN
	@$(OWN) FASHION_VAE_DATA= FASHION_VAE_ROOT= $(SNAKEMAKE) evidence --config draws=10 seeds=2
	@$(OWN) FASHION_VAE_DATA=clothing $(SNAKEMAKE) evidence --config draws=3 seeds=1
	@$(OWN) FASHION_VAE_DATA=clothing $(SNAKEMAKE) evidence --config draws=10 seeds=3 features=frozen
endif
	@for of in $$(cd results && ls -d */ | tr -d /); do test ! -e results/$$of/evidence.jsonl.gz || \
	  papermill --no-progress-bar nbs/11_evidence.ipynb runs/evidence-$$of.ipynb -p dataset $$of > /dev/null || exit 1; done

test: .venv/installed
	python tests/in_sync.py
	ruff check
	pytest -q
	nbdev_test --timing

# Kills, races, flipped bits, a thousand points and SLURM, as the README has them: a quarter of an hour
soak: .venv/installed
	pytest -q --soak tests/test_faults.py tests/test_kills.py tests/test_ranks.py tests/test_grid.py
	papermill --no-progress-bar nbs/14_speed.ipynb runs/speed.ipynb > /dev/null

# Every stage beside what people would use instead, on this machine, which should have nothing else to do: half an hour
bench: .venv/installed
	pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benchmarks/requirements.txt
	python benchmarks/bench.py
	papermill --no-progress-bar nbs/14_speed.ipynb runs/speed.ipynb > /dev/null

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
	uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-emit-index-url --no-header --extra photos --extra controls --extra slurm --extra dev setup.py -o requirements.lock

.venv/installed: requirements.lock settings.ini setup.py
	$(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
