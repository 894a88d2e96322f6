"The tables of 15_speed say what was measured, on machines that measured only a part, too."

import copy
import json
from pathlib import Path

import pytest

from fashion_vae.lib.files import InputError
from fashion_vae.study.speed import (
    COLOURS,
    WORKS,
    faults_table,
    figure_speedup,
    read_benchmarks,
    read_faults,
    roofline_fraction,
    speed_table,
    speedup,
    wait_table,
)

ROOT = Path(__file__).parents[2]
CPU = json.loads((ROOT / "benchmarks/results/cpu.json").read_bytes())


def test_the_published_measurements_have_every_part():
    assert set(WORKS) | {"commands", "precision", "growth"} == set(CPU)
    assert all(CPU[name]["result"]["equal"] for name in WORKS)


def test_a_second_machine_gets_its_own_column():
    gpu = {"vae-64": copy.deepcopy(CPU["vae-64"]), "commands": copy.deepcopy(CPU["commands"])}
    gpu["vae-64"]["machine"] = "a card"
    gpu["vae-64"]["result"]["seconds"] = {"ours": [1.0, 1.0, 1.0], "theirs": [20.0, 30.0, 40.0]}
    results = {"CPU": CPU, "GPU": gpu}
    lines = speed_table(results).splitlines()
    filled = [line for line in lines if "**30.0** (20.0 to 40.0), 1 s" in line]
    assert len(filled) == 1 and "plain PyTorch loop" in filled[0]
    rows = [line.split("|") for line in lines if line.startswith("| ")][1:]
    assert [row[4].strip() for row in rows].count("not measured") == len(WORKS) - 1
    assert "a card" in "".join(lines) and "not measured" not in wait_table(results)
    figure, caption = figure_speedup(results)
    assert caption.count(". ") == 1 and len(figure.axes[0].get_yticks()) == len(WORKS)


def test_ratios_of_one_machine_stand_beside_those_of_another():
    line = next(line for line in speed_table({"CPU": CPU}).splitlines() if "pythae" in line)
    assert f"**{speedup(CPU['vae-pythae']['result']['seconds'])[0]:.1f}**" in line and " 2.4 |" in line
    assert list(COLOURS) == ["CPU", "GPU"] and "GPU" in speed_table({"CPU": CPU}).splitlines()[0]


def test_no_step_is_faster_than_its_bound():
    parts = [part for part in CPU.values() if isinstance(part["result"], dict) and "roofline" in part["result"]]
    assert parts and all(0 < roofline_fraction(part)["larger"] < 1 for part in parts)


def test_faults_are_counted():
    tests = {"a kill": {"held": 29, "tried": 30, "note": "rows"}}
    table = faults_table({"machine": "here", "revision": "now", "tests": tests})
    assert "29 of 30" in table and "30 of 30" not in table


@pytest.mark.parametrize("text", ['{"tests": {"a": {"held": 3, "tried": 2, "note": ""}}}', None])
def test_counts_that_cannot_be_are_refused(tmp_path, text):
    if text:
        (tmp_path / "reliability.json").write_text(text)
    with pytest.raises(InputError, match="make soak"):
        read_faults(tmp_path / "reliability.json")


def test_without_measurements_the_message_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="make bench"):
        read_benchmarks(str(tmp_path))
