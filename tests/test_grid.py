"The grid as an engine sees it: a thousand points, other cores, a cluster, and what is new alone."

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

# In the place of papermill and of python: rows for a notebook in a few milliseconds
PAPERMILL = """#!/bin/sh
[ "$1" = --no-progress-bar ] && shift
notebook=$1 out=$2; shift 2
mkdir -p "${out%/*}"; echo "{}" > "$out"; echo x >> started
point=${out%/*}; rows=runs/rows/fashion-mnist-lt/${point##*/}
while [ $# -gt 0 ]; do [ "$2" = arms ] && arms=$3; shift; done
case $notebook in *02_vae*) arms=vae; touch $rows/latents.svg $rows/latents.png;; esac
for arm in $arms; do
  for kind in "" .run; do echo "{\\"arm\\": \\"$arm\\"}" > $rows/$arm$kind.json; done
done
"""
PYTHON = """#!/bin/sh
shift 2
exec "$@"
"""


@pytest.fixture
def stubs(clone, monkeypatch) -> Path:
    "A clone whose notebooks take milliseconds."
    for name, text in {"papermill": PAPERMILL, "python": PYTHON}.items():
        (clone / "bin").mkdir(exist_ok=True)
        (clone / "bin" / name).write_text(text)
        (clone / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{clone / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{clone / 'workflow'}{os.pathsep}{clone}")
    return clone


def snakemake(clone: Path, *flags: str, **config) -> str:
    command = ["snakemake", "--profile", "workflow/profiles/local", "--cores", "2", "--until", "rows", *flags]
    command += ["--config", *[f"{k}={v}" for k, v in config.items()]] if config else []
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def started(clone: Path) -> int:
    "Notebooks since this was last asked."
    file = clone / "started"
    n = len(file.read_text().split()) if file.exists() else 0
    file.unlink(missing_ok=True)
    return n


def test_only_what_is_new_is_run(stubs):
    snakemake(stubs, draws=1)
    assert started(stubs) == 3 * 4
    snakemake(stubs, draws=1)
    assert started(stubs) == 0
    snakemake(stubs, draws=2)
    assert started(stubs) == 3 * 4  # the second draw
    snakemake(stubs, draws=1, seeds=2)
    assert started(stubs) == 3 * 4
    module = stubs / "fashion_vae" / "classifier.py"
    module.write_text(module.read_text() + "\n")
    snakemake(stubs, draws=2)
    assert started(stubs) == 2 * 4  # stage 3 alone, at the eight points that are asked for
    gathered = (stubs / "runs/grid/fashion-mnist-lt/rows.jsonl").read_text()
    assert len(gathered.splitlines()) == 8 * 11


def test_a_dry_run_tells_how_much_and_how_long(stubs, root):
    shutil.copytree(root / "results", stubs / "results")
    said = snakemake(stubs, "--dry-run", draws=2)
    assert re.search(r"would run: 8 backbone, 8 vae, 8 classifier, 1 rows\nabout \d+ core-minutes", said)
    assert "core-minutes" not in snakemake(stubs, "--dry-run", draws=2, minority=3)  # nothing is known of it
    assert started(stubs) == 0


def test_a_thousand_points(stubs, soak, figures):
    "What Snakemake itself takes for a point, three notebooks and ten arms."
    took, n = {}, 1000 if soak else 20
    for points in (4, n):
        shutil.rmtree(stubs / "runs", ignore_errors=True)
        start = time.monotonic()
        snakemake(stubs, draws=points // 4)
        took[points] = time.monotonic() - start
        assert started(stubs) == 3 * points
    each = (took[n] - took[4]) / (n - 4)
    rows = (stubs / "runs/grid/fashion-mnist-lt/rows.jsonl").read_text().splitlines()
    assert len(rows) == n * 11 and each < 2
    figures[f"{n:,} points of the grid, notebooks in the place of which nothing is done"] = {
        "tried": n, "held": n, "note": f"{each:.2f} s a point on two cores is the engine's own",
    }  # fmt: skip


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
    small_grid.until, small_grid.flags, seen = "backbone", ["--cores", "4"], []
    small_grid.given["draws"] = 4
    run = small_grid.start()
    while run.poll() is None:
        seen.append(running(run.pid))
        time.sleep(0.05)
    assert run.returncode == 0
    above = sum(n > 5 for n in seen) / len(seen)  # four, and Snakemake
    assert max(seen) >= 4 and above < 0.02
    figures["four jobs at once on two cores: threads that run or wait for a core"] = {
        "tried": len(seen), "held": sum(n <= 5 for n in seen), "note": f"at most {max(seen)}, each 50 ms",
    }  # fmt: skip


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
    "A cluster of this machine alone, without systemd or munge; what a job of it must be told."
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
    # the executor takes SLURM's variables away from jobs, which here have no other way to find their cluster
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
    assert small_grid.finish() == here
    jobs = subprocess.run(
        ["squeue", "--states=all", "--noheader"], env=os.environ | slurm, capture_output=True
    )
    assert jobs.stdout.count(b"localhost") == 4  # data, backbone, vae, classifier
    figures["the grid under SLURM on one machine"] = {
        "tried": len(here), "held": len(here), "note": "rows equal to the byte to those without it",
    }  # fmt: skip
