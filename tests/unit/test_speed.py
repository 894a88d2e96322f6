"The tables of 15_speed say what was measured, on machines that measured only a part, too."

import copy
from pathlib import Path

import pytest

from fashion_vae.lib.files import InputError
from fashion_vae.study.speed import (
    CARD,
    GOALS,
    KINDS,
    WAITS,
    WORKS,
    added_share,
    card_table,
    faults_table,
    figure_speedup,
    format_range,
    goals_table,
    newest_parts,
    ratios_of,
    read_benchmarks,
    read_faults,
    roofline_fraction,
    speed_table,
    summary_text,
    wait_table,
)

ROOT = Path(__file__).parents[2]
PUBLISHED = read_benchmarks(str(ROOT / "benchmarks/results"))
MEASURED = [measurement for measurement in PUBLISHED if measurement["device"] == "cpu"]
CPU = newest_parts(MEASURED)["CPU"]


def measured(part: dict, device: str = "cpu", machine: str = "a machine", date: str = "2030-01-01", **more) -> dict:
    return {"machine": machine, "date": date, "device": device, "parts": {"vae-64": part} | more}


def timed(ours: list[float], theirs: list[float]) -> dict:
    part = copy.deepcopy(CPU["vae-64"])
    part["result"] |= {"seconds": {"ours": ours, "theirs": theirs}, "bytes": {"ours": [2**30], "theirs": [2**31]}}
    return part


def line_of(table: str, *words: str) -> list[str]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    return next(row for row in rows if tuple(row[: len(words)]) == words)


def test_what_is_published_was_measured_and_learned_equally_well():
    assert {"commands", "precision", "growth"} <= set(CPU) <= {*WORKS, "commands", "precision", "network", "growth"}
    assert all(part["result"]["equal"] for name, part in CPU.items() if name in WORKS)
    assert set(CPU["commands"]["result"]) <= set(WAITS)


def test_the_published_card_passed():
    card = newest_parts(PUBLISHED)["GPU"]
    assert set(CARD) <= set(card) and set(card["tests"]["result"]) == {"passed"}
    assert all(line["difference"] <= line["tolerance"] for line in card["equality"]["result"])
    assert all(part["result"]["equal"] for name, part in card.items() if name in WORKS)


def test_a_work_has_the_range_of_all_machines_and_days():
    slow, other = (
        measured(timed([2.0], [3.0])),
        measured({"result": {"ratio": 1.25}}, machine="another", date="2029-01-01"),
    )
    line = line_of(speed_table([*MEASURED, other, slow]), *WORKS["vae-64"])
    ratios = [*ratios_of(MEASURED, "CPU", "vae-64"), 1.5, 1.25]
    assert line[2] == f"**{format_range(ratios)}** ({len(ratios)})" and line[2].startswith("**1.2 to ")
    assert line[3:] == ["2 s", "1.0 GiB", "not measured"]  # of the newest
    figure, caption = figure_speedup([*MEASURED, other, slow])
    assert "another (2029-01-01); a machine (2030-01-01)" in caption
    assert any(text.get_text() == format_range(ratios) for text in figure.axes[0].texts)


def test_the_newest_measurement_with_all_its_numbers_counts():
    old, new = measured(timed([1.0], [2.0]), date="2029-01-01"), measured(timed([1.5], [2.0]))
    found = newest_parts([old, new, measured({"result": {"ratio": 9.0}}, machine="another")])["CPU"]["vae-64"]
    assert (found["result"]["seconds"]["ours"], found["date"]) == ([1.5], "2030-01-01")


def test_a_card_has_its_own_column():
    card = measured(timed([1.0, 1.0, 1.0], [20.0, 30.0, 40.0]), "cuda", "a card")
    table = speed_table([*MEASURED, card])
    assert line_of(table, *WORKS["vae-64"])[-1] == "**30.0** (1)" and "a card (2030-01-01)" in table
    assert line_of(table, *WORKS["head"])[-1] == "not measured"
    assert list(KINDS) == ["CPU", "GPU"] and len(figure_speedup([*MEASURED, card])[0].axes) == 1


def test_what_was_not_measured_is_said():
    only = [measured(timed([1.0], [2.0]))]
    assert wait_table(only, 0.0).count("not measured") >= len(WAITS)
    assert goals_table(only).count("not measured |") >= 2 * len(GOALS)
    without = summary_text(only)
    assert "card" not in without and "make paper" not in without
    assert f"Of {len(GOALS)} goals, 0 were met on every processor that was measured, and 0 on some of" in without
    only = newest_parts(only)
    assert card_table(only).count("not measured |") == len(CARD) and "no card" in card_table(only)


def test_arms_that_were_added_are_taken_off():
    part = CPU["commands"] | {"result": {"paper": {"seconds": {"ours": [80.0], "theirs": [100.0]}}}}
    runs = [{"arm": "os-tuned50", "seconds": 1.0}, {"arm": "plain", "seconds": 3.0}]
    fast = measured(timed([1.0], [2.0]), commands=part)
    line = wait_table([fast], added_share(runs)).splitlines()[2]
    assert "0.80 of the time of the earlier version; about 0.60 without" in line
    part = part | {"result": {"paper": {"seconds": {"ours": [120.0], "theirs": [100.0]}}}}
    slow = measured(timed([1.0], [2.0]), machine="another", commands=part)
    rows = wait_table([fast, slow, measured(timed([1.0], [2.0]), machine="a third")], added_share(runs)).splitlines()
    assert [cell.strip() for cell in rows[0].split("|")[2:4]] == ["a machine", "another"]
    assert [cell.strip() for cell in rows[2].split("|")[2:4]] == ["80 s", "120 s"]
    assert "0.80 to 1.20 of the time of the earlier version; about 0.60 to 0.90 without" in rows[2]


def test_goals_are_read_from_what_was_measured():
    commands = {"paper": {"seconds": {"ours": [60.0], "theirs": [100.0]}, "bytes": {"ours": [2**30]}}}
    commands["import"] = {"seconds": {"ours": [2.0, 1.5, 1.6], "theirs": [1.0, 1.1, 1.2]}}
    part = CPU["commands"] | {"result": commands}
    shares = {name: timed([1.0], [2.5]) for name in ("vae-64-one", "tune-photographs")}
    first = measured(timed([1.0], [2.0]), commands=part, **shares)
    rows = [line.split("|") for line in goals_table([first]).splitlines()[2:]]
    found = [(row[3].strip(), row[4].strip()) for row in rows]
    share = f"{roofline_fraction(shares['vae-64-one'])['larger']:.0%}"
    assert found[0] == ("0.60 of its time", "yes") and found[2] == ("0.50 s", "yes")
    assert found[4] == (share, "no") and found[6] == ("2.50", "yes")
    second = measured(timed([1.0], [2.0]), machine="another", **{"tune-photographs": timed([1.0], [2.0])})
    goals = GOALS[6][0], "2.50", "2.50", "2.00", "on 1 of 2", "1.0 GiB"
    assert tuple(line_of(goals_table([first, second]), GOALS[6][0])) == goals
    words = "Of 7 goals, 2 were met on every processor that was measured, and 1 on some of"
    assert words in summary_text([first, second])


def test_a_card_is_reported():
    results = {
        "tests": {"passed": 4},
        "equality": [{"what": "x", "difference": 0.01, "tolerance": 0.02}],
        "throughput": {"images_per_second": 2750.4, "bytes": 2**34},
        "vaes": [{"processes": 1, "vaes_per_hour": 900.0}, {"processes": 8, "vaes_per_hour": 4000.0}],
        "growth": [{"what": "vae images", "n": 9, "bytes": 2**31}],
        "ddp": {"two": 0.5, "one": 0.5001},
    }
    parts = {name: {"result": result, "revision": "a"} for name, result in results.items()}
    table = card_table(newest_parts([{"machine": "a card", "date": "now", "device": "cuda", "parts": parts}]))
    assert all(words in table for words in ("4 passed", "0.50 |", "2,750 images/s, 16.0 GiB"))
    assert "1: 900; 8: 4,000" in table and "0.5000, 0.5001" in table and "Card: a card." in table


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
