"""The grid: its settings, its runs, and what each notebook reads and makes.

The Snakefile imports this module. `python workflow/grid.py` prints the tables that a grid made.
Paths are relative to the project, where Snakemake runs.
"""

import ast
import gzip
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import yaml

from fashion_vae.data import split_counts
from fashion_vae.lib.arms import parse_arm, study_arms, table_arms
from fashion_vae.lib.config import DataConfig, RunConfig, ZeroShotConfig, read_parameters, run_id, source_name
from fashion_vae.lib.files import InputError, atomic_write, check_choice, file_name, resolve_path
from fashion_vae.lib.listing import content_key, file_version, list_images
from fashion_vae.lib.photos import drop_small_classes
from fashion_vae.lib.records import run_fields
from fashion_vae.lib.rows import REMEDY, read_lines

VARIABLES = {"dataset": "DATA", "root": "ROOT", "csv": "CSV", "protocol": "PROTOCOL", "features": "FEATURES"}  # of make
DATA, RESULTS = "nbs/00_data.ipynb", "nbs/04_results.ipynb"
FIGURES = ("methods", "figure1", "figure2", "figure3", "figure4", "recall", "confusion", "latents")
FIGURE_FILES = ("svg", "png", "txt")  # txt: the caption
CONTROLS = {  # notebook that runs the arms of a study -> parameters of its runs, name of its rows
    "10_controls": (RunConfig, "controls"),
    "22_multimodal": (RunConfig, "names"),
    "23_zero_shot": (ZeroShotConfig, "names"),
    "25_label_noise": (RunConfig, "label_noise"),
}
WITH_IMAGES = 10  # n_f of 00_data where the runs have none: that of the other settings on the same images
VARIANTS = {"all": "sensitivity", "names": "names_sensitivity"}  # lists of 13_sensitivity -> name of their rows


# The settings: what all runs share


def read_settings(
    config: dict,  # Snakemake's
    environ: dict,
) -> dict:  # parameters of the notebooks
    "Collect what is set. Snakemake's configuration overrides the Makefile's variables."
    settings = {name: environ.get(f"FASHION_VAE_{variable}") for name, variable in VARIABLES.items()}
    shared = [name for name in RunConfig.model_fields if name not in ("n_f", "draw", "seed")]
    settings |= {name: config[name] for name in shared if name in config}
    return {name: value for name, value in settings.items() if value not in (None, "")}


def check_known(config: dict) -> None:  # Snakemake's
    "Raise `InputError` for a setting that nothing reads."
    defaults = yaml.safe_load(Path("workflow/config.yaml").read_text(encoding="utf-8"))
    for name in config:
        check_choice("--config", name, {*RunConfig.model_fields, *defaults} - {"draw", "seed"})


def check_typed(config: dict) -> None:  # Snakemake's
    """Raise `InputError` for a setting that Snakemake would change on its way to a job.

    It hands what --config sets to the processes that it starts: within the quotes of Python's repr, through a shell.
    """
    for name, value in config.items():
        text = f"{name}={value}"
        if repr(text) not in (f"'{text}'", f'"{text}"') or ("'" in text and re.search(r"[$`]", text)):
            raise InputError(
                f"--config {name}={value!r}: a quotation mark together with $ or `, a backslash and what cannot be"
                " printed do not reach every job; rename the file, or use make paper DATA=… ROOT=… CSV=…"
            )


def whole_number(name: str, value: int | str) -> int:  # a list that is typed has texts
    "A number of runs or images. Raise `InputError` if it is none."
    if not re.fullmatch(r"[0-9]{1,6}", str(value)) or (name != "n_f" and not int(value)):
        raise InputError(f"--config {name}={value!r}: allowed is a whole number from 1 to 999,999")
    return int(value)


def numbers(name: str, value: int | list) -> list[int]:
    "Draws or seeds: so many from 0 on, or those of a list. Raise `InputError` for anything else."
    if not isinstance(value, list):
        return list(range(whole_number(name, value)))
    if not value or not all(re.fullmatch(r"[0-9]{1,6}", str(v)) for v in value):
        raise InputError(f"--config {name}={value!r}: allowed is a number of runs, or a list as in {name}=[10,11]")
    return [int(v) for v in value]


def allowed_n_f(
    config: RunConfig,
    wanted: list[int],
) -> tuple[list[int], str]:  # n_f; a sentence if some were left out
    "Those n_f that the smallest class allows. Raise `InputError` if there is none."
    root = resolve_path(config.root)
    if not config.root or root.is_file():  # an archive is listed only after it is unpacked
        return wanted, ""
    listed = list_images(config.dataset, str(root), config.csv, config.group).assign(row=0)  # as if all were usable
    counts = drop_small_classes(listed, config.min_images)["label"].value_counts()
    name, n = counts.index[-1], int(counts.iloc[-1])
    n_train = split_counts(n)[0]
    allowed = [n_f for n_f in wanted if n_f <= n_train]
    if not allowed:
        raise InputError(
            f"{name!r} has {n} pictures, {n_train} for training, and the least n_f is {min(wanted)};"
            " try PROTOCOL=natural, or --config min_images=… to leave small classes out"
        )
    note = f"{name!r} has {n_train} pictures for training: n_f = {allowed} of {wanted}"
    return allowed, note if allowed != wanted else ""


# The stages: what a notebook reads and makes


@dataclass(frozen=True)
class Stage:
    "Notebooks that are executed one after another, once a run."

    name: str  # of its rule
    notebooks: dict[str, dict]  # path -> what it is given besides the run
    files: tuple[str, ...]  # what they make in the folder of the run
    mem_mb: int = 6000
    minutes: int = 1440


def row_files(arms: Iterable[str]) -> tuple[str, ...]:
    "The row and the run record of each arm."
    return tuple(f"{arm}{end}" for arm in arms for end in (".json", ".run.json"))


def make_stages(
    protocol: str,
    arms: str = "all",  # of the controls
    controls: str = "10_controls",  # the notebook that runs them
    variants: str = "all",  # of the sensitivity analysis
    photographs: bool = False,  # P leaves out augmented arms, and so does its search
) -> dict[str, Stage]:  # by name
    "The three notebooks of the paper, with the arms that lib/arms lists for its table, and those of the studies."
    tuned = [arm.name for arm in table_arms(protocol) if arm.kind.fine_tuned]
    heads = [arm.name for arm in table_arms(protocol) if not arm.kind.fine_tuned]
    own = study_arms() if arms == "all" or controls == "10_controls" else map(parse_arm, arms.split())
    searched = [arm.name for arm in own if arm.has_grid and arm.k in (None, 50)]
    notebooks = {
        "nbs/01_backbone.ipynb": {"arms": " ".join(tuned)},
        "nbs/02_vae.ipynb": {},
        "nbs/03_classifier.ipynb": {"arms": " ".join(heads)},
    }
    latents = tuple(f"latents.{kind}" for kind in FIGURE_FILES)
    stages = [Stage("paper_run", notebooks, row_files([*tuned, "vae", *heads]) + latents)]
    for name, notebook, parameters in (
        ("controls", controls, {"arms": arms}),
        ("search", "12_search", {"pairs": "all", "arms": f"plain os50{'' if photographs else ' plain-aug os-aug50'}"}),
        ("head_search", "12_search", {"arms": " ".join(searched)}),
        ("sensitivity", "13_sensitivity", {"arms": variants}),
    ):
        file = {"controls": CONTROLS[controls][1], "sensitivity": VARIANTS[variants]}.get(name, name)
        files = (f"{file}.jsonl", f"{file}.run.json")
        stages.append(Stage(name, {f"nbs/study/{notebook}.ipynb": parameters}, files))
    return {stage.name: stage for stage in stages}


def modules(*notebooks: str) -> list[str]:  # paths, sorted
    "The modules that notebooks import or export, and those that they import."
    text = "".join(Path(notebook).read_text(encoding="utf-8") for notebook in notebooks)
    todo = {*re.findall(r"(?:(?:from|import) fashion_vae\.|#\| default_exp )([\w.]+)", text)}
    used = set()
    while todo := todo - used:
        used |= todo
        todo = {name for module in todo for name in imports(module)}
    return sorted(str(module_path(module)) for module in used)


def module_path(name: str) -> Path:  # lib.files -> fashion_vae/lib/files.py
    return Path("fashion_vae", *name.split(".")).with_suffix(".py")


def imports(module: str) -> set[str]:
    "The modules of this package that one of them imports."
    package = ["fashion_vae", *module.split(".")[:-1]]
    names = set()
    for node in ast.walk(ast.parse(module_path(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            names.add(".".join([*package[: len(package) - node.level + 1], node.module]))
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.removeprefix("fashion_vae.") for name in names if name.startswith("fashion_vae.")}


def code_digest(*notebooks: str) -> str:
    "SHA-256 of the code of notebooks. A run depends on that, not on the outputs that are saved with it."
    digest = sha256()
    for notebook in notebooks:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
        digest.update("".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").encode())
    return digest.hexdigest()


def any_of(names: Iterable[str]) -> str:
    "A regular expression for these names and no others."
    return "|".join(map(re.escape, names))


# The runs


def name_results(config: RunConfig) -> str:
    "Name of a grid's results. Another network or number of rare classes keeps its results apart."
    default = RunConfig(**{name: getattr(config, name) for name in VARIABLES})
    parts = [config.setting]
    forms = {"backbone": "{}", "weights": "{}", "side": "{}px", "epochs": "{}ep", "minority": "m{}"}
    for field, form in forms.items():
        value = getattr(config, field)
        if value != getattr(default, field):
            parts.append(form.format(source_name(value) if field == "weights" else value))
    return "-".join(parts)


class Grid:
    "All runs of the paper and of the studies. Raises `InputError` if a setting is not allowed."

    def __init__(self, config: dict, environ: dict = os.environ):
        check_known(config)
        self.settings = read_settings(config, environ)
        self.config = read_parameters(self.settings, RunConfig)  # of all runs, but for n_f, draw and seed
        self.natural = self.config.protocol == "natural"
        self.photographs = content_key(self.config.dataset, self.config.root, self.config.csv, self.config.group)
        version = f" {file_version(Path(self.config.features))}" * self.config.has_feature_file
        self.content = self.photographs + version  # of all files that are read
        self.name = name_results(self.config) + (f"-{file_name(config['label'])}" if config.get("label") else "")
        # The tables compare fine-tuned networks with heads on their features; others have the studies alone
        self.has_tables = self.config.setting == self.config.data_name
        arms = self.settings.pop("arms", "all")
        controls = check_choice("--config study", config.get("study", "10_controls"), CONTROLS)
        self.model = CONTROLS[controls][0]
        variants = check_choice("--config variants", config.get("variants", "all"), VARIANTS)
        self.stages = make_stages(self.config.protocol, arms, controls, variants, bool(self.photographs))
        asked = arms == "all" or variants != "all"
        self.has_sensitivity = self.has_tables and not self.natural and asked
        self._make_all_runs(config)

    def _make_all_runs(self, config: dict) -> None:
        if not isinstance(config["n_f"], list) or not config["n_f"]:
            raise InputError(f"--config n_f={config['n_f']!r}: allowed is a list of numbers, as in n_f=[5,10]")
        wanted = [whole_number("n_f", n) for n in config["n_f"]]
        n_f, self.note = ([None], "") if self.natural else allowed_n_f(self.config, wanted)
        few = [n for n in n_f if n in (10, n_f[-1])]  # for what needs no more
        draws = config["draws"]
        draws = numbers("draws", draws[self.config.protocol] if isinstance(draws, dict) else draws)
        seeds = numbers("seeds", config["seeds"])
        self.runs = self._make_runs(n_f, draws, seeds)
        self.first = next(iter(self._make_runs(few, draws, seeds)))
        self.studies = {"controls": self.runs}
        if self.has_sensitivity:
            n = whole_number("sensitivity_draws", config["sensitivity_draws"])
            self.studies["sensitivity"] = self._make_runs(few, draws[:n], seeds[:1])
        if self.has_tables and not self.natural:
            if not isinstance(config["search_draws"], dict):
                raise InputError(f"--config search_draws={config['search_draws']!r}: set it in workflow/config.yaml")
            kind, n_f = ("photographs", few[:1]) if self.photographs else ("images", few)  # of classifiers
            draws = config["search_draws"][kind]
            self.studies["search"] = self._make_runs(few, draws, [0])
            self.studies["head_search"] = self._make_runs(n_f, draws, [0])
        self.by_id = {name: run for runs in self.studies.values() for name, run in runs.items()}

    def _make_runs(self, n_f: list, draws: Iterable[int], seeds: Iterable[int]) -> dict[str, RunConfig]:
        fields = [{"n_f": n, "draw": d, "seed": s} for n in n_f for d in draws for s in seeds]
        runs = [read_parameters(self.settings | own, self.model) for own in fields]
        return {run_id(run): run for run in runs}

    def parameters(self, stage: Stage, wildcards) -> str:  # JSON: notebook -> parameters
        "What a job gives to run_notebooks.py. A value of None is left out."
        run = self.by_id[wildcards.run]
        own = {"n_f": run.n_f, "draw": run.draw, "seed": run.seed}
        shared = {name: value for name, value in (self.settings | own).items() if value is not None}
        return json.dumps({notebook: shared | given for notebook, given in stage.notebooks.items()})

    def data_parameters(self) -> str:  # JSON
        "The same for 00_data."
        names = [name for name in (*VARIABLES, "group", "min_images") if name in DataConfig.model_fields]
        n_f = self.by_id[self.first].n_f
        given = {name: self.settings.get(name) for name in names} | {"n_f": WITH_IMAGES if n_f == 0 else n_f}
        return json.dumps({DATA: {name: value for name, value in given.items() if value is not None}})

    def results_parameters(self) -> str:  # JSON
        "The same for 04_results."
        return json.dumps({RESULTS: {"dataset": self.name, "rows": "runs/report", "out": "runs/report"}})

    def gathered(self) -> dict[str, list[str]]:  # name -> parts
        "The files of the report that are put together from those of the runs."

        def parts(runs: dict, files: list[str]) -> list[str]:
            return [f"runs/rows/{self.config.setting}/{run}/{file}" for run in runs for file in files]

        files = [file for file in self.stages["paper_run"].files if file.endswith(".json")]
        records = [file for file in files if file.endswith(".run.json")]
        rows = [file for file in files if file not in records]
        gathered = {"rows.jsonl": parts(self.runs, rows), "runs.jsonl": parts(self.runs, records)}
        for stage, runs in self.studies.items():
            name = "studies" if stage == "controls" else stage
            rows, record = self.stages[stage].files
            gathered |= {f"{name}.jsonl.gz": parts(runs, [rows]), f"{name}_runs.jsonl": parts(runs, [record])}
        return gathered


def load(
    config: dict,  # Snakemake's
    quiet: bool,  # in a job of its own
) -> Grid:
    "The grid that the settings describe. Ends the program with a sentence if they do not describe one."
    if not os.access(".", os.W_OK):
        sys.exit(f"{os.getcwd()}: this folder cannot be written, and a grid writes below runs/")
    try:
        check_typed(config)
        grid = Grid(config)
    except InputError as e:
        sys.exit(str(e))
    if grid.note and not quiet:
        print(grid.note, file=sys.stderr)
    return grid


def check_run(part: Path, lines: list[dict], run: RunConfig) -> None:
    "Raise `InputError` unless the lines of a file are of the run, and of the arm, that its path names."
    name, expected, is_record = f"{part.parent.name}/{part.name}", run_fields(run), part.name.endswith(".run.json")
    if part.suffix == ".json":  # <arm>.json or <arm>.run.json; the files of studies hold many arms
        expected["arm"] = part.name.split(".")[0]
    if not lines or (part.suffix == ".json" and len(lines) > 1):
        raise InputError(f"{name}: there are {len(lines)} lines; {REMEDY}")
    for number, line in enumerate(lines, start=1):
        where = f"{name}: line {number}"
        if ("seconds" in line) != is_record:
            raise InputError(f"{where} is {'a row' if is_record else 'the record of a run'}; {REMEDY}")
        fields = expected.keys() & line.keys() if is_record else expected.keys() | {"nproc"} & line.keys()
        for field in sorted(fields):
            if line.get(field) != expected.get(field):
                raise InputError(
                    f"{where} has {field} = {line.get(field)!r} and belongs to a run with"
                    f" {field} = {expected.get(field)!r}; {REMEDY}"
                )
        side = run.side if is_record else line["config"].get("BackboneConfig", {}).get("side", run.side)
        if run.side not in ("auto", side):
            raise InputError(f"{where} is of {side} pixels and belongs to a run with side = {run.side}; {REMEDY}")


def gather(
    parts: list[str],  # files in folders of runs
    target: str,  # compressed if it ends in .gz
    runs: dict[str, RunConfig],  # by folder
) -> None:
    "Concatenate files of rows. Raise `InputError` for a row that is damaged, impossible or of another run."
    paths = [Path(part) for part in parts]
    for path in paths:
        check_run(path, read_lines(path), runs[path.parent.name])
    data = b"".join(path.read_bytes() for path in paths)
    atomic_write(Path(target), gzip.compress(data, mtime=0) if target.endswith(".gz") else data)


def write_advice(folder: Path) -> None:
    "Write remedies.md from the rows of the studies."
    from fashion_vae.lib.advice import WORDS, Comparison, advice_markdown, share_of_tests  # slow, and rarely needed
    from fashion_vae.lib.metrics import metrics_table

    rows = [row for row in read_lines(folder / "studies.jsonl.gz") if row["arm"] in WORDS]
    if rows:
        found = Comparison(metrics_table(rows), share_of_tests(rows))
        atomic_write(folder / "remedies.md", advice_markdown(found, rows[0]["dataset"]).encode())


def show_report(environ: dict = os.environ) -> None:
    "Print the tables, the note on groups and the verdict that the grid of these settings left."
    run = RunConfig(**read_settings({}, environ))
    folder = Path("runs/report", run.setting)
    if run.protocol == "natural" and run.is_frozen:  # 04_results compares fine-tuned networks alone
        write_advice(folder)
    for name in ("remedies.md", "table2.md", "findings.md", "grouping.txt", "reproduced.md"):
        if (folder / name).is_file():
            print((folder / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    show_report()
