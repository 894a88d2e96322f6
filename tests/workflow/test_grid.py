"The grid: its runs, what an engine makes of them, and what it prints."

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from types import SimpleNamespace

import grid
import lock
import nbformat
import pytest
import yaml

from fashion_vae.lib import arms
from fashion_vae.lib.config import DataConfig, read_parameters
from fashion_vae.lib.files import InputError

ROOT = Path(__file__).resolve().parents[2]

# The settings, the runs and the stages


@pytest.fixture
def make_grid(root, monkeypatch):
    monkeypatch.chdir(root)
    defaults = yaml.safe_load((root / "workflow" / "config.yaml").read_text())
    return lambda environ=None, **config: grid.Grid(defaults | config, environ or {})


def test_a_run_of_each_n_f_draw_and_seed(make_grid):
    assert len(make_grid().runs) == 4 * 3
    assert len(make_grid(draws=5, seeds=2).runs) == 4 * 5 * 2
    assert make_grid().first == "resnet-small-nf10-d0-s0-t1"


def test_the_studies_have_draws_of_their_own(make_grid):
    studies = make_grid(draws=7, seeds=2).studies
    sizes = {name: len(runs) for name, runs in studies.items()}
    assert sizes == {"controls": 56, "sensitivity": 12, "search": 8, "head_search": 8}
    assert not studies["search"].keys() & studies["controls"].keys()
    listed = make_grid(draws=[10, 12], seeds=[2, 3])
    assert {(run.draw, run.seed) for run in listed.runs.values()} == {(d, s) for d in (10, 12) for s in (2, 3)}
    assert {run.seed for run in listed.studies["sensitivity"].values()} == {2}


def test_a_label_and_the_length_of_training_keep_results_apart(make_grid):
    assert make_grid(label="few", n_f=[1, 2]).name == "fashion-mnist-lt-few"
    assert make_grid(epochs=50).name == "fashion-mnist-lt-50ep"


EVIDENCE = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "workflow/evidence").glob("*.yaml")}


@pytest.mark.parametrize("setting", sorted(name for name, config in EVIDENCE.items() if "arms" in config))
def test_the_evidence_asks_for_arms_that_its_setting_has(setting, make_grid):
    given, asked = make_grid(**EVIDENCE[setting]).config, map(arms.parse_arm, EVIDENCE[setting]["arms"].split())
    reasons = {arm.name: arms.not_available(arm, given.features, given.protocol) for arm in asked}
    assert set(reasons.values()) == {""}, reasons


def test_the_arms_of_a_study_can_be_chosen(make_grid):
    stages = make_grid(arms="plain crt50").stages
    assert stages["controls"].notebooks["nbs/study/10_controls.ipynb"] == {"arms": "plain crt50"}
    assert "os30" in stages["paper_run"].notebooks["nbs/01_backbone.ipynb"]["arms"]


def test_a_study_of_its_own_has_its_own_notebook_rows_and_least_n_f(make_grid):
    names = make_grid(study="22_multimodal", arms="z50 cada50", label="names", n_f=[1, 10])
    stage = names.stages["controls"]
    assert stage.notebooks == {"nbs/study/22_multimodal.ipynb": {"arms": "z50 cada50"}}
    assert stage.files == ("names.jsonl", "names.run.json")  # beside the rows of 10_controls
    assert names.gathered()["studies.jsonl.gz"][0].endswith("/names.jsonl")
    assert "sensitivity" not in names.studies
    zero = make_grid(study="23_zero_shot", arms="cadabal", n_f=[0])
    assert {run.n_f for run in zero.runs.values()} == {0} and all("-nf0-" in run for run in zero.runs)
    with pytest.raises(InputError, match="--config study = '22': allowed are"):
        make_grid(study="22")
    with pytest.raises(InputError, match="parameter n_f = 5: allowed is 0"):
        make_grid(study="23_zero_shot", n_f=[5])


def test_settings_on_the_same_photographs_check_them_in_the_same_way(root, make_grid):
    "Otherwise the check runs again, and all rows of the other settings after it."
    given = []
    for name in ("P", "M-photographs", "M-zero-photographs"):
        config = yaml.safe_load((root / f"workflow/evidence/{name}.yaml").read_text(encoding="utf-8"))
        given.append(json.loads(make_grid(**config).data_parameters())["nbs/00_data.ipynb"])
        assert read_parameters(given[-1], DataConfig).n_f == 10
    assert given[0] == given[1] == given[2]


def test_the_search_of_names_has_their_arms(make_grid):
    names = make_grid(study="22_multimodal", arms="plain z50 cada50 textinit ridge-proto", label="names", n_f=[1, 10])
    assert names.stages["head_search"].notebooks["nbs/study/12_search.ipynb"] == {"arms": "z50 cada50 textinit"}
    assert "cada50" not in make_grid().stages["head_search"].notebooks["nbs/study/12_search.ipynb"]["arms"]
    noise = make_grid(study="25_label_noise", arms="crt50 vae50 cada50", label="wrong-labels", n_f=[10])
    assert noise.stages["controls"].files == ("label_noise.jsonl", "label_noise.run.json")


def test_the_sensitivity_of_the_joint_vae_has_rows_of_its_own(make_grid):
    given = {"dataset": "fashion-mnist-registered", "n_f": [1, 10], "draws": [10, 11], "seeds": [2, 3]}
    own = make_grid(study="22_multimodal", arms="z50 cada50", label="names", variants="names", **given)
    stage = own.stages["sensitivity"]
    assert stage.notebooks == {"nbs/study/13_sensitivity.ipynb": {"arms": "names"}}
    assert stage.files == ("names_sensitivity.jsonl", "names_sensitivity.run.json")  # beside those of other grids
    assert {(run.n_f, run.draw, run.seed) for run in own.studies["sensitivity"].values()} == {(10, 10, 2), (10, 11, 2)}
    assert own.gathered()["sensitivity.jsonl.gz"][0].endswith("/names_sensitivity.jsonl")
    assert make_grid().stages["sensitivity"].files == ("sensitivity.jsonl", "sensitivity.run.json")
    with pytest.raises(InputError, match="--config variants = 'cada': allowed are"):
        make_grid(variants="cada")


def test_other_features_have_the_studies_alone(make_grid):
    imagenet = make_grid(features="imagenet")
    assert not imagenet.has_tables and list(imagenet.studies) == ["controls"]
    assert imagenet.name == "fashion-mnist-lt-imagenet" and imagenet.config.data_name == "fashion-mnist-lt"


def test_on_photographs_pairs_are_searched_on_one_draw_and_classifiers_at_one_n_f(make_grid, clothing):
    studies = make_grid(dataset="clothing", min_images=200, root=str(clothing)).studies
    assert {(run.n_f, run.draw) for run in studies["search"].values()} == {(10, 100), (50, 100)}
    assert {(run.n_f, run.draw) for run in studies["head_search"].values()} == {(10, 100)}


def test_a_file_of_features_is_handed_on_like_the_photographs(make_grid, photographs, tmp_path):
    file = tmp_path / "my clip.npz"
    file.write_bytes(b"1")
    given = {"dataset": "folder", "root": str(photographs), "n_f": [5], "draws": 1}
    mine = make_grid(**given, features=str(file))
    stage = mine.stages["controls"]
    [values] = json.loads(mine.parameters(stage, SimpleNamespace(run=mine.first))).values()
    assert values["features"] == str(file) and "features" not in mine.data_parameters()
    assert mine.first.startswith("my-clip") and mine.name == mine.config.setting and not mine.has_tables
    by_make = make_grid(**given, environ={"FASHION_VAE_FEATURES": str(file)})
    assert by_make.runs == mine.runs
    file.write_bytes(b"22")
    assert make_grid(**given, features=str(file)).content != mine.content == by_make.content
    plain = make_grid(**given)
    assert plain.content == plain.photographs == mine.photographs


def test_another_network_or_number_of_rare_classes_keeps_its_results_apart(make_grid):
    assert make_grid(minority=3).name == "fashion-mnist-lt-m3"
    assert make_grid(backbone="resnet18", weights="none").name == "fashion-mnist-lt-resnet18-28px"


def test_what_is_typed_goes_before_the_variables_of_make(make_grid):
    environ = {"FASHION_VAE_DATA": "clothing", "FASHION_VAE_ROOT": "", "FASHION_VAE_PROTOCOL": "natural"}
    assert make_grid(environ).name == "clothing-natural"
    assert make_grid(environ, dataset="fashion-mnist-lt", protocol="gfsl").name == "fashion-mnist-lt"


def test_the_smallest_class_limits_n_f(make_grid, photographs):
    given = {"dataset": "folder", "root": str(photographs)}
    few = make_grid(**given)
    assert {run.n_f for run in few.runs.values()} == {5}
    assert few.note == "'blue' has 5 pictures for training: n_f = [5] of [5, 10, 30, 50]"
    with pytest.raises(InputError, match="'blue' has 9 pictures, 5 for training, and the least n_f is 6"):
        make_grid(**given, n_f=[6])


def test_groups_and_classes_left_out_reach_every_notebook(make_grid, photographs):
    given = {"dataset": "folder", "root": str(photographs)}
    large = make_grid(**given, min_images=10, group="none")
    assert {run.n_f for run in large.runs.values()} == {5, 10} and large.name.endswith("-min10-group-none")
    own = json.loads(large.data_parameters())["nbs/00_data.ipynb"]
    assert (own["min_images"], own["group"]) == (10, "none")
    run = json.loads(large.parameters(large.stages["paper_run"], SimpleNamespace(run=large.first)))
    assert all((one["min_images"], one["group"]) == (10, "none") for one in run.values())
    with pytest.raises(InputError, match=r"min_images = 31: 0 of 3 classes .* allowed is 1 to 30"):
        make_grid(**given, min_images=31)
    with pytest.raises(InputError, match="group = 'sender': without a table"):
        make_grid(**given, group="sender")


def test_natural_imbalance_has_no_n_f(make_grid, photographs):
    natural = make_grid(dataset="folder", root=str(photographs), protocol="natural")
    assert len(natural.runs) == 5 and {run.n_f for run in natural.runs.values()} == {None}
    assert natural.stages["paper_run"].notebooks["nbs/01_backbone.ipynb"] == {"arms": "plain osbal os-tunedbal"}
    assert "n_f" not in natural.data_parameters()


@pytest.mark.parametrize(
    "config,sentence",
    [
        ({"dataset": "fashionstyle14"}, "FashionStyle14 as published"),
        ({"dataset": "folder", "root": "nowhere"}, "no such folder"),
        ({"root": "x"}, "fashion-mnist-lt comes with the package"),
        ({"dataset": "clothing", "csv": "a.csv"}, "clothing has its own lists"),
        ({"dataset": "clothes"}, "parameter dataset = 'clothes': allowed are clothing"),
        ({"dataset": "clothing", "protocol": "nat"}, "parameter protocol = 'nat': allowed is gfsl"),
        ({"n_f": [0]}, "parameter n_f = 0: allowed is a whole number from 1"),
        ({"features": "os"}, "parameter features = 'os': allowed is plain, imagenet"),
    ],
)
def test_a_wrong_setting_is_refused(make_grid, config, sentence):
    with pytest.raises(InputError, match=sentence):
        make_grid(**config)


def test_every_notebook_of_a_run_gets_its_parameters(make_grid, photographs):
    few = make_grid(dataset="folder", root=str(photographs), n_f=[5])
    given = json.loads(few.parameters(few.stages["paper_run"], SimpleNamespace(run=few.first)))
    run = {"dataset": "folder", "root": str(photographs), "n_f": 5, "draw": 0, "seed": 0}
    assert list(given) == ["nbs/01_backbone.ipynb", "nbs/02_vae.ipynb", "nbs/03_classifier.ipynb"]
    tuned = {"arms": "plain os30 os50 os-tuned30 os-tuned50"}
    assert given["nbs/02_vae.ipynb"] == run and given["nbs/01_backbone.ipynb"] == run | tuned


def test_a_new_arm_appears_in_the_grid(make_grid, monkeypatch):
    monkeypatch.setattr(arms, "KINDS", dict(arms.KINDS))
    arms.add_kind("mix", "mixed features {k}", "control", "x", table_k=(30,))
    new = make_grid()
    notebooks = new.stages["paper_run"].notebooks
    assert notebooks["nbs/03_classifier.ipynb"]["arms"].endswith(" mix30")
    assert "mix30" not in notebooks["nbs/01_backbone.ipynb"]["arms"]
    assert f"runs/rows/fashion-mnist-lt/{new.first}/mix30.json" in new.gathered()["rows.jsonl"]


def test_a_stage_depends_on_the_modules_that_it_imports(make_grid):
    uses = {name: grid.modules(*stage.notebooks) for name, stage in make_grid().stages.items()}
    assert {"fashion_vae/classifier.py", "fashion_vae/vae.py"} <= set(uses["paper_run"])
    assert "fashion_vae/lib/training.py" in uses["paper_run"]
    assert not [path for path in uses["paper_run"] if "study" in path or path.endswith("results.py")]
    assert {"fashion_vae/study/controls.py", "fashion_vae/study/posthoc.py"} <= set(uses["controls"])


def test_saved_outputs_do_not_change_a_notebooks_code(root, tmp_path):
    saved = json.loads((root / "nbs" / "02_vae.ipynb").read_text(encoding="utf-8"))
    for cell in saved["cells"]:
        changed = (
            {"outputs": [], "execution_count": 7} if cell["cell_type"] == "code" else {"source": ["new"]}
        )
        cell.update(changed)
    (tmp_path / "saved.ipynb").write_text(json.dumps(saved))
    assert grid.code_digest(tmp_path / "saved.ipynb") == grid.code_digest(root / "nbs" / "02_vae.ipynb")


# The jobs, as Snakemake plans them


def snakemake(folder: Path, *flags: str, **config) -> subprocess.CompletedProcess:
    command = ["snakemake", "--profile", "workflow/profiles/local", "--cores", "2", *flags]
    command += ["--config", *[f"{k}={v}" for k, v in config.items()]] if config else []
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def planned(folder: Path, *flags: str, **config) -> dict[str, int]:  # rule -> jobs
    done = snakemake(folder, "--dry-run", "--forceall", *flags, **config)
    assert done.returncode == 0, done.stderr
    table = re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    return {rule: int(jobs) for rule, jobs in table}


def test_the_jobs_of_the_paper_and_of_the_studies(clone):
    held = lock.hold(str(clone / "runs" / "grid.lock"))  # a dry run needs no lock
    assert planned(clone) == {"paper_run": 12, "data": 1, "gather": 2, "results": 1, "paper": 1, "total": 17}
    studies = {"controls": 16, "sensitivity": 8}
    assert planned(clone, "studies", draws=4) == studies | {"gather": 4, "studies": 1, "total": 29}
    search = {"search": 8, "head_search": 8}
    assert planned(clone, "searches", draws=4) == search | {"gather": 4, "searches": 1, "total": 21}
    held.close()


def test_a_wrong_setting_ends_a_grid_with_one_sentence(root):
    done = snakemake(root, "--dry-run", dataset="clothes")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) <= 3 and "did you mean clothing?" in lines[-1]


# The jobs, with notebooks that take milliseconds

PYTHON = """#!{python} -IS
import hashlib, json, os, signal, sys, time
from pathlib import Path

given = sys.argv[1:]
if given[0] == "workflow/on_gpu.py":
    given = given[3:]
if given[0] != "workflow/run_notebooks.py":
    os.execv({python!r}, [{python!r}, *given])
folder = Path(given[1])


def has(variable):
    return os.environ[variable] in str(folder)


def sealed(row):
    text = json.dumps(row, sort_keys=True)
    digest = hashlib.sha256(f"{{text}}\\n".encode()).hexdigest()[:16]
    return f'{{text[:-1]}}, "sha256": "{{digest}}"}}}}\\n'


for notebook, own in json.loads(given[2]).items():
    (folder / Path(notebook).name).write_text("{{}}")
    with open(os.environ["STARTED"], "a") as file:
        file.write("x\\n")
    while os.path.exists(os.environ["HOLD"]):
        time.sleep(0.05)
    if has("FAILING"):
        sys.exit("InputError: too few images")
    if has("KILLED"):
        os.kill(os.getpid(), signal.SIGKILL)
    rows = Path("runs/rows/fashion-mnist-lt", folder.parent.name)
    run = {{"dataset": "fashion-mnist-lt", "backbone": "resnet-small"}}
    run |= {{name: own[name] for name in ("n_f", "draw", "seed") if name in own}}
    more = {{"edition": 2, "protocol": "gfsl", "weights": "none", "minority": "auto"}}
    more |= {{"threads": 1, "versions": {{}}, "config": {{}}}}
    if "02_vae" in notebook:
        own["arms"] = "vae"
        for kind in ("svg", "png", "txt"):
            (rows / f"latents.{{kind}}").touch()
    for arm in own.get("arms", "").split():
        (rows / f"{{arm}}.json").write_text(sealed(run | more | {{"arm": arm}}))
        (rows / f"{{arm}}.run.json").write_text(sealed(run | {{"seconds": 1, "arm": arm}}))
"""


@pytest.fixture
def stubs(clone, tmp_path, monkeypatch) -> Path:
    "A clone, with a stub in the place of python, and so of all notebooks."
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(PYTHON.format(python=sys.executable))
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(clone))
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    for name in ("HOLD", "FAILING", "KILLED"):
        monkeypatch.setenv(name, "nothing")
    return clone


def run_grid(clone: Path, until: str = "paper_run", **config) -> int:
    "Run a grid of stubs. Return how many notebooks were started."
    file = Path(os.environ["STARTED"])
    file.write_text("")
    done = snakemake(clone, "--until", until, **config)
    assert done.returncode == 0, done.stderr[-3000:]
    return len(file.read_text().split())


def test_only_what_is_new_is_run(stubs):
    few = {"n_f": "[5]"}
    assert run_grid(stubs, **few, draws=1) == 3
    assert run_grid(stubs, **few, draws=1) == 0
    assert run_grid(stubs, **few, draws=2) == 3  # the second draw
    assert run_grid(stubs, **few, draws=1, seeds=2) == 3
    module = stubs / "fashion_vae" / "classifier.py"
    module.write_text(module.read_text() + "\n")
    assert run_grid(stubs, "gather", **few, draws=2) == 2 * 3  # the two runs; their stages 1 and 2 are in the cache
    rows = (stubs / "runs/report/fashion-mnist-lt/rows.jsonl").read_text()
    assert len(rows.splitlines()) == 2 * 13


def test_a_grid_does_not_change_the_clone(stubs):
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm all"):
        subprocess.run(["git", *command.split()], cwd=stubs, check=True)
    run_grid(stubs, "gather", n_f="[10]", draws=1)
    assert not subprocess.run(["git", "status", "--porcelain"], cwd=stubs, capture_output=True).stdout


def test_a_grid_prints_a_line_a_job_and_why_some_failed(stubs, monkeypatch):
    monkeypatch.setenv("FAILING", "nf5-d0-s0-t1")
    monkeypatch.setenv("KILLED", "nf10-d0-s0-t1")
    done = snakemake(stubs, "--until", "gather", draws=1)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and sum("steps" in line for line in lines) == 2  # at two n_f
    log = "runs/grid/fashion-mnist-lt/resnet-small-nf{}-d0-s0-t1/paper_run.log"
    assert f"{log.format(5)}: InputError: too few images" in lines
    assert f"{log.format(10)}: run_notebooks.py was killed by signal 9 (out of memory?)" in lines
    assert len(lines) <= 2 + 30
    own = "run_notebooks.py $(dirname"  # bash names the command of a killed job; that may split a line of another job
    assert own not in done.stderr and own in (stubs / log.format(10)).read_text()


# Notebooks in one kernel


@pytest.fixture
def run_notebooks(root, tmp_path):
    "Execute notebooks of one code cell each."

    def run(**codes: str) -> subprocess.CompletedProcess:
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        for name, code in codes.items():
            tagged = nbformat.v4.new_code_cell("n = 0", metadata={"tags": ["parameters"]})
            cells = [tagged, nbformat.v4.new_code_cell(code)]
            notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
            nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        given = json.dumps({str(tmp_path / f"{name}.ipynb"): {"n": n} for n, name in enumerate(codes, 1)})
        (tmp_path / "out").mkdir()
        command = [sys.executable, root / "workflow" / "run_notebooks.py", tmp_path / "out", given]
        return subprocess.run(command, capture_output=True, text=True)

    return run


def test_a_notebook_knows_nothing_of_the_one_before_it(run_notebooks, tmp_path):
    code = "import os, sys\nleft = [k for k in globals() if k.startswith('left')]\nprint(n, left, len(In), os.getpid())"
    done = run_notebooks(first=f"left_over = 1\n{code}", second=code)
    assert done.returncode == 0, done.stderr
    executed = [nbformat.read(tmp_path / "out" / f"{name}.ipynb", 4) for name in ("first", "second")]
    (a, names, cells, pid), second = (n.cells[2].outputs[0].text.split() for n in executed)
    assert (a, names, cells) == ("1", "['left_over']", "4") and second == ["2", "[]", "4", pid]
    assert all("injected-parameters" in n.cells[1].metadata.tags for n in executed)


@pytest.mark.parametrize(
    "code,sentence",
    [
        ("import os\nos.kill(os.getpid(), 9)", r"first.ipynb: its kernel was killed by signal 9 \(out of memory\?\)"),
        ("raise ValueError('too few')", "ValueError: too few"),
    ],
)
def test_a_notebook_that_fails_says_why_in_its_last_line(run_notebooks, code, sentence):
    done = run_notebooks(first=code, second="print('not reached')")
    assert done.returncode == 1 and re.search(sentence, done.stderr.strip().splitlines()[-1]), done.stderr


# Two grids in one clone


def test_a_second_grid_in_a_clone_is_refused_and_a_killed_one_holds_nothing(stubs, tmp_path, monkeypatch):
    (tmp_path / "hold").touch()
    Path(os.environ["STARTED"]).touch()
    command = ["snakemake", "--profile", "workflow/profiles/local", "--cores", "2", "--config", "draws=1"]
    env = os.environ | {"HOLD": str(tmp_path / "hold")}
    first = subprocess.Popen(command, cwd=stubs, env=env, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not Path(os.environ["STARTED"]).read_text():
            time.sleep(0.05)
        second = snakemake(stubs, "--until", "data", draws=2)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    lines = second.stderr.splitlines()
    holder = rf"process {first.pid} on {re.escape(platform.node())}"
    assert re.match(rf"runs/grid\.lock: {holder} .* since \d{{4}}-\d\d-\d\d \d\d:\d\d", lines[-1])
    assert second.returncode == 1 and len(lines) <= 3
    with open(stubs / "runs" / "grid.lock") as file:
        flock(file, LOCK_EX | LOCK_NB)  # raises if the killed grid still holds it


def test_a_thousand_runs(stubs, soak, figures):
    "What Snakemake itself takes for a run of three notebooks and ten arms."
    if not soak:
        pytest.skip("in make soak: it takes minutes")
    seconds, n = {}, 1000
    for runs in (4, n):
        shutil.rmtree(stubs / "runs", ignore_errors=True)
        start = time.monotonic()
        assert run_grid(stubs, "gather", draws=runs // 4) == 3 * runs
        seconds[runs] = time.monotonic() - start
    each = (seconds[n] - seconds[4]) / (n - 4)
    rows = (stubs / "runs/report/fashion-mnist-lt/rows.jsonl").read_text().splitlines()
    figures[f"{n:,} runs of the grid, with stubs in the place of the notebooks"] = {
        "tried": n, "held": len(rows) // 11, "note": f"Snakemake takes {each:.2f} s a run on two cores",
    }  # fmt: skip
    assert len(rows) == n * 11 and each < 2


# The real notebooks


def running(group: int) -> int:
    "Threads of a session that are on a core or want one, now."
    count = 0
    for task in Path("/proc").glob("[0-9]*/task/*/stat"):
        try:
            state, _, _, session = task.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended
            continue
        count += state == "R" and int(session) == group
    return count


def test_four_jobs_keep_to_a_thread_each(small_grid, soak, figures):
    if not soak:
        pytest.skip("in make soak")
    small_grid.until, small_grid.flags, counts = "paper_run", ["--cores", "4"], []
    small_grid.config["draws"] = 4
    run = small_grid.start()
    while run.poll() is None:
        counts.append(running(run.pid))
        time.sleep(0.05)
    within = sum(n <= 5 for n in counts)  # four, and Snakemake
    figures["four jobs at once on two cores: threads that run or wait for a core"] = {
        "tried": len(counts), "held": within, "note": f"at most {max(counts)}, counted each 50 ms",
    }  # fmt: skip
    assert run.returncode == 0 and max(counts) >= 4 and within > 0.98 * len(counts)


SLURM = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MinJobAge=3600
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} RealMemory=8000
PartitionName=all Nodes=localhost Default=YES State=UP
"""


@pytest.fixture
def slurm(tmp_path):
    "A cluster of this machine alone, without systemd or munge. Gives the environment that its jobs need."
    if not shutil.which("slurmctld"):
        pytest.skip("no SLURM on this machine (Debian: slurm-wlm)")
    folder, ports = tmp_path / "slurm", []
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    for _ in range(2):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
    file = folder / "slurm.conf"
    given = {"folder": folder, "ports": ports, "cpus": os.cpu_count(), "host": socket.gethostname()}
    file.write_text(SLURM.format(user=os.environ.get("USER", "root"), **given))
    # the executor takes SLURM's variables away from jobs, which have no other way to find their cluster here
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={file} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    env = {"SLURM_CONF": str(file), "PATH": f"{srun.parent}{os.pathsep}{os.environ['PATH']}"}
    for command in (["slurmctld", "-c"], ["slurmd", "-N", "localhost"]):
        subprocess.run(command, env=os.environ | env, check=True)
    yield env
    subprocess.run(["scontrol", "shutdown"], env=os.environ | env)


def test_a_cluster_leaves_the_rows_of_one_machine(small_grid, slurm, soak, figures):
    if not soak:
        pytest.skip("in make soak: its executor looks at jobs each forty seconds")
    here = small_grid.finish()
    small_grid.forget()
    small_grid.profile, small_grid.env = "slurm", slurm
    small_grid.flags = ["--slurm-status-command", "squeue", "--latency-wait", "5"]
    there = small_grid.finish()
    figures["the grid under SLURM on one machine"] = {
        "tried": len(here), "held": sum(there.get(name) == row for name, row in here.items()),
        "note": "files of rows that equal those without SLURM, byte for byte",
    }  # fmt: skip
    assert there == here
    queue = ["squeue", "--states=all", "--noheader"]
    jobs = subprocess.run(queue, env=os.environ | slurm, capture_output=True).stdout
    assert jobs.count(b"localhost") == 2  # data and the run
