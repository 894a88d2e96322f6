"""What is published is what `results/` gives: every table, every block of a text, every draw.

The notebooks are executed with their code as it stands, in this process, because a kernel takes two seconds
to start. Figures are made and not drawn: their captions are compared, and their SVG and PNG are not.
"""

import gzip
import io
import json
import re
import shutil
from functools import cache
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from PIL import Image
from publish import NOT_PUBLISHED, report_blocks, texts

from fashion_vae import data, results
from fashion_vae.lib import plots
from fashion_vae.lib.files import sealed
from fashion_vae.lib.report import update_blocks
from fashion_vae.lib.rows import read_lines
from fashion_vae.study.name_claims import COSTS
from fashion_vae.study.registration import SETTINGS

STUDIES = ("study/14_statistics", "study/16_comparison")
NOTEBOOKS = {  # setting -> what makes its tables
    "fashion-mnist-lt": ("04_results",),
    "fashion-mnist-registered": STUDIES,
    "clothing-min200": (*STUDIES, "study/19_senders"),
    "evidence": ("study/21_verdicts", "study/27_second_search"),
    "names": ("study/24_names", "study/26_names_sensitivity"),
    "speed": ("study/15_speed",),
}
ONLY_ROWS = {"clothing-min200-group-none"} | {SETTINGS[name].dataset for name in ("N", "N-tuned", "F-50", "F-few")}
NAME_ROWS = {setting.dataset for setting in COSTS.values()}  # what the notebooks of "names" read
NO_ROWS = {"evidence", "names", "speed"}  # made from rows of other settings
ROOT = Path(__file__).parents[2]
BLOCKS = {  # text -> its blocks; listed here, because a text without its marks does not tell that it had some
    "README.md": ["evidence/summary", "evidence/answer", "names/section_5"],
    "docs/reliability.md": ["speed/faults"],
    "docs/speed.md": [
        *("speed/summary", "speed/ratios", "speed/speed", "speed/waits", "speed/goals", "speed/card"),
        *("speed/roofline", "speed/precision", "speed/network", "speed/growth", "speed/growth_memory"),
        *("speed/memory", "speed/million"),
    ],
    "figures/README.md": ["fashion-mnist-lt/table2"],
    "figures/claims.md": [
        *("evidence/claims_short", "evidence/claims", "evidence/more_answers", "evidence/by_n_f", "evidence/gain"),
        "evidence/choices",
        *(f"{setting}/gamma_differences" for setting in ("fashion-mnist-registered", "clothing-min200")),
        *("evidence/verdicts", "evidence/test_images"),
    ],
    "figures/class_names.md": [
        *("names/section_5", "names/by_n_f", "names/name_by_n_f", "names/name_answers", "names/name_verdicts"),
        *("names/name_test_images", "names/zero_shot", "names/name_sensitivity", "names/wrong_labels"),
        "names/name_costs",
    ],
    "figures/methods.md": [
        *(f"fashion-mnist-registered/{name}" for name in ("training", "measures")),
        *("clothing-min200/comparison", "evidence/pairs_of_both", "evidence/claims_of_both"),
    ],
    "figures/choices.md": [
        *("fashion-mnist-registered/sensitivity_table", "clothing-min200/senders", "clothing-min200/senders_worth"),
    ],
}


@pytest.fixture
def notebooks(monkeypatch):
    "Execute notebooks without drawing their figures. Rows are read once."
    png = io.BytesIO()
    Image.new("L", (1, 1)).save(png, "png")
    monkeypatch.setattr(plots, "save_figure", lambda figure, path, kinds=(): path.parent.mkdir(exist_ok=True))
    monkeypatch.setattr(plots, "png_bytes", lambda *given, **named: png.getvalue())
    monkeypatch.setattr(results, "read_rows", cache(results.read_rows))

    def execute(name: str, parameters: dict[str, str]) -> None:
        namespace = {"__name__": "__main__", "display": lambda *given, **named: None}
        with mpl.rc_context():
            for cell in json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
                if cell["cell_type"] == "code":
                    exec(compile("".join(cell["source"]), f"{name}, cell {cell['id']}", "exec"), namespace)
                if "parameters" in cell["metadata"].get("tags", []):
                    namespace |= parameters

    return execute


@pytest.fixture
def make_again(notebooks, tmp_path):
    "Make the report of a setting again from the results below a folder."

    def make(root: Path, setting: str, names: tuple[str, ...]) -> Path:
        given = {"dataset": setting, "rows": str(root / "results"), "out": str(tmp_path / "made")}
        if setting == "speed":
            given = {"benchmarks": str(root / "benchmarks/results"), "out": given["out"]}
            given["reliability"] = str(root / "results/reliability.json")
        for name in names:
            notebooks(name, given)
        return tmp_path / "made" / setting

    return make


def differing(root: Path, made: Path) -> list[str]:
    "The published tables and captions, and the blocks of texts, that are not what was made again; sorted."
    files = {path.name for folder in (root / "figures" / made.name, made) for path in folder.glob("*.md")}
    files |= {path.name for path in made.glob("*.txt")}  # captions; that of samples comes from 00_data
    pairs = {name: (root / "figures" / made.name / name, made / name) for name in files - {NOT_PUBLISHED}}
    names = [str(a.relative_to(root)) for a, b in pairs.values() if not same_bytes(a, b)]
    blocks = report_blocks(made)
    for path in texts(root):
        text = path.read_text(encoding="utf-8")
        for block in re.findall(rf"<!--\s*({made.name}/\w+)\s*-->", text):
            if block not in blocks or not (again := filled(text, block, blocks[block])) or again != text:
                names.append(f"{path.relative_to(root)}: {block}")
    listed = [(file, block) for file in BLOCKS for block in BLOCKS[file] if block.startswith(f"{made.name}/")]
    names += [f"{file}: {b} is gone" for file, b in listed if f"<!-- {b} -->\n" not in read_or_empty(root / file)]
    return sorted(names)


def read_or_empty(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def filled(text: str, block: str, content: str) -> str:  # empty if the marks of the block are damaged
    marks = f"<!-- {block} -->\n", f"\n<!-- /{block} -->\n"
    return update_blocks(text, {block: content}) if all(text.count(mark) == 1 for mark in marks) else ""


def same_bytes(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()


# what is published


@pytest.mark.parametrize("setting", NOTEBOOKS)
def test_every_table_and_block_is_made_again_from_the_results(root, make_again, setting):
    made = make_again(root, setting, NOTEBOOKS[setting])
    assert list(made.glob("*.md"))
    assert differing(root, made) == []


@pytest.mark.parametrize("setting", sorted(ONLY_ROWS))
def test_make_evidence_can_report_on_every_setting_with_rows(root, make_again, setting):
    assert list(make_again(root, setting, STUDIES).glob("against_*.md"))


def test_every_setting_that_is_published_is_made_again(root):
    def folders(kind: str) -> set[str]:
        return {path.name for path in (root / kind).iterdir() if path.is_dir()}

    assert folders("figures") == set(NOTEBOOKS)
    assert folders("results") == (set(NOTEBOOKS) | ONLY_ROWS | NAME_ROWS) - NO_ROWS


def test_the_text_on_class_names_tells_the_secondary_verdicts_of_fashion_mnist(root):
    "The page says which are lost and which are won, and that names help without images."
    lines = (root / "figures/names/name_verdicts.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| M")]
    verdicts = {(cell[2], cell[1].split(":")[0]): cell[8] for cell in cells}
    assert {verdicts["F", claim] for claim in ("M4", "M6", "M11")} == {"**contradicted**"}
    assert verdicts["F", "M9"] == "**equivalent**"
    assert {verdicts[key] for key in (("F", "M10"), ("F-zero", "M2"), ("F-zero", "M7"))} == {"**supported**"}


def test_the_text_on_wrong_labels_tells_what_its_table_has(root):
    "With 20 % wrong labels, the joint VAE loses more than both others; VAE sampling always loses least."
    lines = (root / "figures/names/wrong_labels.md").read_text().splitlines()
    cells = [cell for line in lines if line.startswith("| 20%") for cell in line.split("|")[-3:-1]]
    ends = [cell.split(",")[1].strip(" ]") for cell in cells]
    assert len(ends) == 4 and max(map(float, ends)) < 0
    for line in lines[2:]:
        crt, vae, cada = (float(cell.split()[0]) for cell in line.split("|")[2:5])
        assert vae > max(crt, cada)


def test_the_blocks_of_the_texts_are_those_that_are_listed(root):
    found = {path: re.findall(r"<!-- ([\w-]+/\w+) -->", path.read_text(encoding="utf-8")) for path in texts(root)}
    assert {str(path.relative_to(root)): blocks for path, blocks in found.items() if blocks} == BLOCKS
    assert {block.split("/")[0] for blocks in BLOCKS.values() for block in blocks} <= set(NOTEBOOKS)


def rare_classes(classes: tuple[str, ...], draw: int) -> list[str]:
    return [classes[c] for c in data.minority_classes(classes, "auto", draw)]


@pytest.mark.parametrize(("setting", "file"), [
    ("fashion-mnist-lt", "rows.jsonl"), ("fashion-mnist-registered", "studies.jsonl.gz"),
])  # fmt: skip
def test_the_rare_classes_of_the_rows_are_those_of_their_draws(root, setting, file):
    rows = [row for row in read_lines(root / "results" / setting / file) if "classes" in row]
    for draw, names in {row["draw"]: row["minority_classes"] for row in rows}.items():
        assert names == rare_classes(tuple(rows[0]["classes"]), draw)


def test_the_table_of_draws_is_that_of_the_classes(root):
    folder = root / "results" / "fashion-mnist-lt"
    classes = tuple(next(row for row in read_lines(folder / "rows.jsonl") if "classes" in row)["classes"])
    rare = {draw: rare_classes(classes, draw) for draw in range(10)}
    table = pd.DataFrame(rare, index=[f"minority {i + 1}" for i in range(4)]).T.rename_axis("draw")
    assert table.to_csv().encode() == (folder / "draws.csv").read_bytes()


@pytest.mark.parametrize("setting", sorted({*NOTEBOOKS, *ONLY_ROWS, *NAME_ROWS} - NO_ROWS))
def test_there_are_as_many_rows_as_the_runs_recorded(root, setting):
    for file in sorted((root / "results" / setting).glob("*runs.jsonl")):
        name = file.name.removesuffix("runs.jsonl").rstrip("_")
        rows = file.with_name(f"{name}.jsonl.gz" if name else "rows.jsonl")
        packed = gzip.decompress(rows.read_bytes()) if name else rows.read_bytes()
        assert packed.count(b"\n") == sum(record.get("rows", 1) for record in read_lines(file))


# what was changed


@pytest.fixture
def copy(root, tmp_path) -> Path:
    "What is published, to be changed."
    for name in ("docs", "figures", "results", "benchmarks/results"):
        drawn = shutil.ignore_patterns("*.svg", "*.png")
        shutil.copytree(root / name, tmp_path / "copy" / name, ignore=drawn)
    shutil.copy(root / "README.md", tmp_path / "copy")
    return tmp_path / "copy"


def change_digit(path: Path, after: str) -> None:
    "Change the first digit behind a text."
    text = path.read_text(encoding="utf-8")
    place = re.compile(r"\d").search(text, text.index(after) + len(after)).start()
    path.write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}", encoding="utf-8")


CHANGED = {  # file, and the text before the digit -> what is named
    ("figures/speed/waits.md", "|:"): ["figures/speed/waits.md"],
    ("docs/speed.md", "<!-- speed/waits -->"): ["docs/speed.md: speed/waits"],
    ("docs/speed.md", "<!-- speed/growth_memory -->"): ["docs/speed.md: speed/growth_memory"],
    ("docs/reliability.md", "<!-- speed/faults -->"): ["docs/reliability.md: speed/faults"],
    ("results/reliability.json", '"tried": '): ["docs/reliability.md: speed/faults", "figures/speed/faults.md"],
}


def test_a_changed_digit_of_a_table_a_block_or_a_result_is_noticed(copy, root, make_again):
    for (file, after), named in CHANGED.items():
        change_digit(copy / file, after)
        assert differing(copy, make_again(copy, "speed", NOTEBOOKS["speed"])) == named
        shutil.copy(root / file, copy / file)


def test_a_row_that_was_changed_and_sealed_again_is_noticed(copy, make_again):
    "One right answer of the test set becomes a wrong one. All totals stay."
    path = copy / "results" / "fashion-mnist-lt" / "rows.jsonl"
    rows = read_lines(path)
    row = next(row for row in rows if (row["arm"], row["n_f"], row["draw"]) == ("plain", 50, 1))  # without answers
    rare = row["classes"].index(row["minority_classes"][0])
    row["confusion"]["test"][rare][rare] -= 1
    row["confusion"]["test"][rare][rare - 1] += 1
    path.write_bytes(b"".join(map(sealed, rows)))
    named = differing(copy, make_again(copy, "fashion-mnist-lt", ("04_results",)))
    assert {"figures/fashion-mnist-lt/table2.md", "figures/README.md: fashion-mnist-lt/table2"} <= set(named)


def test_the_second_search_says_what_its_tables_say(root):  # the text of 27_second_search
    def lines(name: str) -> list[list[str]]:
        table = (root / "figures" / "evidence" / f"{name}.md").read_text(encoding="utf-8")
        return [line.strip("| ").split("|") for line in table.splitlines()[2:]]

    means = [[float(cell) for cell in line[-4:]] for line in lines("pairs_of_both")]
    before, present, shared, gamma_before, gamma_present, _ = means
    assert [a > b for a, b in zip(before, shared, strict=True)] == [True, True, False, False]
    assert all(a < b for a, b in zip(present, shared, strict=True))
    assert all(a > b for a, b in zip(gamma_present, gamma_before, strict=True))
    verdicts = [[re.match(r"[a-z :*]+", cell.strip())[0] for cell in line[1:]] for line in lines("claims_of_both")]
    assert len(verdicts) == 2 and all(first == both for first, both in verdicts)
