# make paper: all experiments and Table 2; make test: all tests; make lab: the notebooks
# On photographs: make paper DATA=clothing, or DATA=folder ROOT=photos/ [CSV=labels.csv] [PROTOCOL=natural]
# [FEATURES=features.npz]
# What is typed after make is text: make expands nothing in it, and it reaches a shell only through the environment.
is_typed = $(findstring command,$(origin $1))
# only what is typed after make: the environment may use a name like ROOT for something else
typed = $(if $(call is_typed,$1),$(value $1))
export FASHION_VAE_DATA := $(call typed,DATA)
export FASHION_VAE_ROOT := $(call typed,ROOT)
export FASHION_VAE_CSV := $(call typed,CSV)
export FASHION_VAE_PROTOCOL := $(call typed,PROTOCOL)
export FASHION_VAE_FEATURES := $(call typed,FEATURES)
export ARGS := $(call typed,ARGS)
export PYTHON ?= python3.11
export CORES ?= all
export PATH := $(CURDIR)/.venv/bin:$(value PATH)
# make would expand what is typed once more on its way to the commands
$(foreach name,$(.VARIABLES),$(if $(call is_typed,$(name)),$(eval override $(name) := $$(value $(name)))))

override SNAKEMAKE = snakemake --profile workflow/profiles/local --cores "$$CORES"
override EMBEDDED = FASHION_VAE_DATA= FASHION_VAE_ROOT= FASHION_VAE_CSV= FASHION_VAE_PROTOCOL= FASHION_VAE_FEATURES=
override ROWS = $(if $(RERUN),runs/report,results)

.PHONY: docs paper evidence reports search publish article test soak bench gpu lab sync notebooks lock

# All experiments, then Table 2 and whether the published rows were reproduced
paper: .venv/installed
	@$(SNAKEMAKE)
	@python workflow/grid.py

# The claims and their verdicts, from the published rows; RERUN=1 makes the rows again (hours)
evidence: .venv/installed
ifdef RERUN
	@for config in workflow/evidence/*.yaml; do \
	  $(EMBEDDED) $(SNAKEMAKE) studies --configfile "$$config" || exit 1; \
	done
endif
	@$(MAKE) --no-print-directory --jobs=2 reports
	@cat runs/report/evidence/summary.md runs/report/evidence/answer.md runs/report/evidence/verdicts.md

# A report of each setting, and one of the claims
reports: report-of-evidence $(if $(wildcard $(ROWS)/*-names/studies.jsonl.gz),report-of-names) \
  $(filter-out %-names %-zero-shot %-wrong-labels,\
  $(patsubst $(ROWS)/%/studies.jsonl.gz,report-of-%,$(wildcard $(ROWS)/*/studies.jsonl.gz)))

report-of-evidence: override NOTEBOOKS = 21_verdicts 27_second_search 19_senders
report-of-names: override NOTEBOOKS = 24_names 26_names_sensitivity
report-of-%: override NOTEBOOKS = 14_statistics 16_comparison
report-of-%:
	@mkdir -p "runs/studies/$*"
	@all=; given='{"rows": "$(ROWS)", "out": "runs/report"'; \
	case "$*" in evidence|names) ;; *) given="$$given, \"dataset\": \"$*\"";; esac; \
	for name in $(NOTEBOOKS); do all="$$all$${all:+, }\"nbs/study/$$name.ipynb\": $$given}"; done; \
	python workflow/run_notebooks.py "runs/studies/$*" "{$$all}" > "runs/studies/$*.log" 2>&1 \
	  || { python workflow/why.py $$? "runs/studies/$*.log"; exit 1; }

# Hyper-parameters, searched on draws that no table reports; the results are constants in nbs/lib/defaults
search: .venv/installed
	@$(EMBEDDED) $(SNAKEMAKE) searches
	@$(EMBEDDED) $(SNAKEMAKE) searches --config dataset=clothing min_images=200

# The report of a run becomes the published one: results/, figures/ and the tables in the texts
publish: .venv/installed
	@python tools/publish.py

# article/article.pdf, article/article.html and the results of README.ko.md, from the published rows and figures
article: .venv/installed
	@pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r article/requirements.txt
	@python tools/article.py

# Web pages of all texts and notebooks in runs/docs, without scripts
docs: .venv/installed
	@pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r article/requirements.txt
	@python tools/docs_site.py

test: .venv/installed
	python tests/in_sync.py
	ruff check
	pytest -q -n 2 --dist worksteal
	nbdev_test --timing

# Kills, races, flipped bits, a thousand runs and SLURM, as docs/reliability.md has them: a quarter of an hour
soak: .venv/installed
	pytest -q --soak tests/reliability tests/workflow
	papermill --no-progress-bar nbs/study/15_speed.ipynb runs/15_speed.ipynb -r out runs/report > /dev/null

# Each stage beside the usual alternatives, on this machine, which should have nothing else to do: up to two hours
bench: .venv/installed
	pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benchmarks/requirements.txt
	pytest -q tests/unit/test_bench.py -k "their_vae or library"
	python benchmarks/bench.py
	papermill --no-progress-bar nbs/study/15_speed.ipynb runs/15_speed.ipynb -r out runs/report > /dev/null

# What one NVIDIA card can do, alone and in at most 40 minutes; goes on where it was stopped
gpu: .venv/installed
	@python benchmarks/gpu.py --check
	pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benchmarks/requirements.txt
	python benchmarks/gpu.py; status=$$?; \
	  papermill --no-progress-bar nbs/study/15_speed.ipynb runs/15_speed.ipynb -r out runs/report > /dev/null; \
	  exit $$status

lab: .venv/installed
	jupyter lab nbs/00_data.ipynb --config=tools/jupyter_server_config.py $$ARGS

# After an edit: notebooks -> fashion_vae/, and notebooks cleaned
sync: .venv/installed
	nbdev_clean
	nbdev_export

# The committed outputs: run every notebook where it stands, without progress bars
notebooks: .venv/installed
	TQDM_DISABLE=1 jupyter nbconvert --to notebook --execute --inplace nbs/*.ipynb nbs/lib/*.ipynb nbs/study/*.ipynb nbs/tool/*.ipynb
	$(MAKE) sync

# New versions of everything, with hashes; needs uv
lock:
	uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-emit-index-url --no-header --extra photos --extra export --extra controls --extra slurm --extra dev setup.py -o requirements.lock

.venv/installed: requirements.lock settings.ini setup.py pyproject.toml
	"$$PYTHON" -m venv .venv
	pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
