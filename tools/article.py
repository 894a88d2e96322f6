"""Build the article: fill the numbers of article/article.md from the rows, then write article.pdf and article.html.

python tools/article.py [--text]: with --text, only print the filled text. `make article` installs what this needs.
The results of README.ko.md are filled as well, between the marks of a block.

Between {{ and }} stands a field: a name and its arguments. `FIELDS` has all names. A field that is unknown, that
cannot be computed, or whose verdict is another than the text says ends the program with one sentence.
"""

import hashlib
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fashion_vae.data import TABLE_1
from fashion_vae.lib.defaults import BACKBONES, HEAD, ON_CPU, TUNED, backbone_config, vae_config
from fashion_vae.lib.files import InputError, atomic_write, project_root
from fashion_vae.lib.metrics import metrics_table, n_f_label
from fashion_vae.lib.networks import make_backbone
from fashion_vae.lib.report import escape_markdown, format_ci, markdown_table, update_blocks
from fashion_vae.lib.rows import read_lines
from fashion_vae.results import PAPER, PAPER_N_F, paper_gains
from fashion_vae.study.comparison import sensitivity_effects
from fashion_vae.study.registration import CLAIMS, SETTINGS, SettingRows, corrected, evaluate_claims, read_settings
from fashion_vae.study.senders import N_F as SHARED_N_F
from fashion_vae.study.senders import SPLITS
from fashion_vae.study.statistics import ALPHA, MARGIN, PairedTests, by_draw, paired_tests
from fashion_vae.study.verdicts import (
    change_text,
    changes_line,
    claim_line,
    claim_order,
    image_table,
    is_void,
    n_primary,
    p_text,
    short_verdicts,
    sureness_text,
)

SOURCE, KOREAN = "article/article.md", "README.ko.md"
FIELD = re.compile(r"\{\{([^{}]*)\}\}")
TEXT_GAINS = {5: 0.54, 10: 21.93, 30: 22.41, 50: 7.09}  # Park 2021, section V, as printed; Table 2 gives others
WORDS = {name: setting.words for name, setting in SETTINGS.items()}
WORDS["N-tuned"] = f"{WORDS['N'].partition(',')[0]}, fine-tuned"  # its own words refer to those of N
PAPER_NAMES = {"ERM": "ResNet-50", "os": "Oversampling×", "vae": "VAE sampling×"}
DEMONSTRATION = "fashion-mnist-lt"
OLD_SPLIT = next(name for name in SPLITS if name.endswith("group-none"))  # of P, by single photographs
SEARCHES = ("search", "head_search")  # of hyper-parameters, in results/fashion-mnist-lt
DATA_IN_WORDS = {"fashion-mnist-registered": "setting F", "fashion-mnist-lt": "the demonstration"}  # in captions
SURE = ("equivalent", "not shown to be equivalent")
MINUTES = r"make paper, default grid, from nothing *\| *([\d.]+) s"  # in figures/speed/waits.md


class Rows:
    "What the fields are computed from: the rows of all settings, and the published exhibits."

    def __init__(self, root: Path, settings: dict[str, SettingRows]):
        self.root, self.settings = root, settings

    @cached_property
    def claims(self) -> dict:
        return evaluate_claims(self.settings)

    @cached_property
    def corrected_equivalence(self) -> dict:  # as `claims`; p after Holm's correction
        return corrected({key: result.equivalence for key, result in self.claims.items()}, "pooled acc_h")

    @cached_property
    def numbers(self) -> dict[str, int]:  # exhibit -> its number; filled by `number_exhibits`
        return {}

    @cached_property
    def varied(self) -> dict[str, dict[int, np.ndarray]]:  # choice -> n_f -> (J, S)
        path = self.root / "results" / SETTINGS["F"].dataset / "sensitivity.jsonl.gz"
        return sensitivity_effects(metrics_table(read_lines(path)))

    def scored(self, setting: str) -> pd.DataFrame:
        if setting not in self.settings:
            raise InputError(f"setting {setting} has no rows")
        return self.settings[setting].scored

    def side(self, setting: str, arms: str, measure: str = "acc_h") -> pd.Series:  # index n_f, draw, seed
        "A measure of an arm in each run; vae50_acc is vae50 chosen by accuracy, vae30+vae50 their mean."
        values = []
        for arm in arms.split("+"):
            name, _, ending = arm.partition("_")
            frame = self.scored(setting)
            frame = frame[frame["arm"] == name]
            if frame.empty:
                raise InputError(f"setting {setting} has no rows of {name}")
            values.append(frame.set_index(["n_f", "draw", "seed"])[f"{measure}{'_' * bool(ending)}{ending}"])
        return sum(values) / len(values)

    def tests(self, setting: str, a: str, b: str, n_f: str, measure: str) -> PairedTests:
        differences = by_draw((self.side(setting, a, measure) - self.side(setting, b, measure)).dropna())
        chosen = np.mean(list(differences.values()), axis=0) if n_f == "mean" else differences[int(n_f)]
        return paired_tests(chosen, self.settings[setting].overlap)

    def file(self, name: str) -> str:
        path = self.root / name
        if not path.is_file():
            raise InputError(f"{name} is missing; `make evidence` or `make paper` with `make publish` makes it")
        return path.read_text(encoding="utf-8").strip()


# fields: rows and arguments -> text


def value(rows: Rows, setting: str, arms: str, n_f: str, measure: str = "acc_h") -> str:
    "Mean of a measure over draws and seeds at one n_f, or over all n_f (mean), in percent."
    values = rows.side(setting, arms, measure)
    return f"{(values if n_f == 'mean' else values.xs(int(n_f), level='n_f')).mean():.1f}"


def difference(rows: Rows, setting: str, a: str, b: str, n_f: str, measure: str = "acc_h") -> str:
    "Mean paired difference in points with its 95 % interval over draws."
    tests = rows.tests(setting, a, b, n_f, measure)
    return format_ci(tests.mean, *tests.interval)


def claim(rows: Rows, setting: str, name: str, what: str = "difference") -> str:
    "The difference, the verdict or the tested part of a claim."
    if (setting, name) not in rows.claims:
        raise InputError(f"claim {name} has no rows in setting {setting}")
    result = rows.claims[setting, name]
    return {
        "difference": format_ci(result.tests.mean, *result.tests.interval),
        "verdict": result.verdict,
        "part": result.part,
        "detectable": f"{result.tests.detectable:.1f}",
    }[what]


def senders(rows: Rows, arm: str) -> str:  # points
    "acc_h at n_f = 10 under a split of single photographs, minus that under a split by sender."
    made = read_lines(rows.root / "results" / OLD_SPLIT / "studies.jsonl.gz")
    old = metrics_table([row for row in made if row["arm"] == arm])
    new = rows.scored("P").query(f"arm == {arm!r} and n_f == {SHARED_N_F}")
    return f"{old['acc_h'].mean() - new['acc_h'].mean():.1f}"


def require(rows: Rows, setting: str, name: str, *verdict: str) -> str:  # C4,_n_f_=_5: C4 at one n_f
    "Nothing; the sentences around this field hold only with this verdict."
    name = re.sub(r",_n_f_=_", ", n_f = ", name)
    found = claim(rows, setting, name, "verdict")
    if found != " ".join(verdict):
        raise InputError(f"the text says that {name} is {' '.join(verdict)} in setting {setting}; it is {found}")
    return ""


def design(rows: Rows, setting: str, what: str) -> str:
    "How large a setting is: draws, seeds, runs, rows, arms, or test images of a class."
    scored, row = rows.scored(setting), rows.settings[setting].rows[0]
    runs = scored[["n_f", "draw", "seed"]].drop_duplicates()
    counts = {"draws": scored["draw"].nunique(), "seeds": scored["seed"].nunique(), "runs": len(runs)}
    counts |= {"rows": len(scored), "arms": scored["arm"].nunique(), "test": sum(row["images"]["test"])}
    counts |= {"epochs": row["config"]["BackboneConfig"]["epochs"], "classes": len(row["classes"])}
    counts |= {"rare": len(row["minority_classes"]), "train": max(row["images"]["train"])}
    counts |= {"val": max(row["images"]["val"])}
    return f"{counts[what]:,}"


def equivalence(rows: Rows, setting: str, a: str, b: str, n_f: str, *language: str) -> str:
    "Is a difference of a point or more rejected? Not corrected, and no verdict."
    words = ("동등한 것으로 판정되었다", "동등성은 확인되지 않았다") if language else SURE
    return words[rows.tests(setting, a, b, n_f, "acc_h").equivalence >= ALPHA]


def overfit(rows: Rows, setting: str, arm: str, n_f: str) -> str:
    "How far the cross-entropy on validation images lies above that in training, after the last epoch."
    last = [row["history"][-1] for row in rows.settings[setting].rows if (row["arm"], row["n_f"]) == (arm, int(n_f))]
    return f"{np.mean([epoch['val_loss'] - epoch['loss'] for epoch in last]):.2f}"


def sureness(rows: Rows) -> str:
    "Whether the equivalences stand if they are corrected, and if accuracy chooses the classifiers."
    return re.sub(r"^- \*\*.*?\*\* ", "", sureness_text(rows.claims, rows.settings)).strip()


def family(rows: Rows) -> str:
    "How many claims Holm's correction runs over."
    return str(n_primary())


def survivors(rows: Rows, setting: str, *language: str) -> str:
    "How many of the equivalences of primary claims would stand after Holm's correction, as in 1 of 3."
    own = {key: result for key, result in rows.claims.items() if key[0] == setting and result.claim.primary}
    equal = [key for key, result in own.items() if result.verdict == "equivalent"]
    stay = sum(rows.corrected_equivalence[key] < ALPHA for key in equal)
    return f"{len(equal)}개 가운데 {stay}개" if language else f"{stay} of {len(equal)}"


def latent(rows: Rows, what: str) -> str:
    "A mean over the VAEs of setting F, of the report in their rows."
    path = rows.root / "results" / SETTINGS["F"].dataset / "studies.jsonl.gz"
    return f"{np.mean([row['latent'][what] for row in read_lines(path) if 'latent' in row]):.2f}"


def varied(rows: Rows, n_f: str, *variant: str) -> str:
    "What another choice changes in acc_h of VAE sampling ×50 on Fashion-MNIST: in points, with its 95 % interval."
    name = " ".join(variant)
    if name not in rows.varied:
        raise InputError(f"{name} is no choice of the sensitivity table; known are {', '.join(rows.varied)}")
    tests = paired_tests(rows.varied[name][int(n_f)])
    return format_ci(tests.mean, *tests.interval)


def std(rows: Rows, setting: str, arm: str, n_f: str) -> str:
    "Standard deviation of acc_h over draws, seeds averaged."
    return f"{by_draw(rows.side(setting, arm))[int(n_f)].mean(1).std(ddof=1):.1f}"


def search(rows: Rows, what: str) -> str:
    "The search of stage 1: how many pairs of learning rate and weight decay, in how many runs."
    lines = read_lines(rows.root / "results" / "fashion-mnist-lt" / "search.jsonl.gz")
    pairs = {(line["lr"], line["weight_decay"]) for line in lines}
    runs = {(line["n_f"], line["draw"], line["seed"]) for line in lines}
    return f"{len({'pairs': pairs, 'runs': runs}[what])}"


def constant(rows: Rows, name: str) -> str:
    "A number of the configuration, or of the paper."
    small, lite, theirs = (BACKBONES[name] for name in ("resnet-small", "tf_efficientnet_lite0", "resnet50"))
    vae = vae_config(small.width, "fp32")
    mantissa, exponent = f"{vae.beta_step:e}".split("e")
    numbers = {
        "beta-step": rf"{float(mantissa):g} \times 10^{{{int(exponent)}}}",
        "beta-epochs": vae.beta_epochs, "latents": vae.latents, "vae-epochs": vae.epochs,
        "width": small.width, "epochs": small.epochs, "side": small.side,
        "photo-width": lite.width, "photo-epochs": ON_CPU["epochs"], "photo-side": ON_CPU["side"],
        "paper-width": theirs.width, "paper-epochs": theirs.epochs,
        "parameters": f"{sum(p.numel() for p in make_backbone('resnet-small').parameters()):,}",
        "candidates": len(HEAD.factors) * len(HEAD.decays), "head-epochs": HEAD.epochs,
        "margin": f"{MARGIN:g}", "claims": len(CLAIMS), "untested-p": 1,
        "batch": small.batch, "photo-batch": ON_CPU.get("batch", lite.batch),
        "vae-hidden": vae.hidden, "vae-batch": vae.batch,
        "paper-images": f"{sum(map(sum, TABLE_1.values())):,}", "paper-classes": len(TABLE_1),
    }  # fmt: skip
    weights = {"kl-weight": small, "photo-kl-weight": lite, "paper-kl-weight": theirs}
    last = vae.beta_step * vae.beta_epochs
    numbers |= {key: f"{last * network.width / 2:.2f}" for key, network in weights.items()}
    return str(numbers[name])


def paper(rows: Rows, kind: str, n_f: str, measure: str = "acc_h") -> str:
    "A number of the paper's Table 2: ERM, os30, os50, vae30, vae50; or gain, text-gain, largest-gain."
    place = PAPER_N_F.index(int(n_f))
    if kind == "gain":
        return f"{paper_gains()[place]:.2f}"
    if kind == "text-gain":
        return f"{TEXT_GAINS[int(n_f)]:.2f}"
    name = re.sub(r"^[a-zA-Z]+", lambda word: PAPER_NAMES[word[0]], kind)
    return f"{PAPER[name][place][('acc_h', 'acc').index(measure)]:.2f}"


def changes(rows: Rows, setting: str) -> str:
    "Which verdicts of a setting differ from those of F."
    text = change_text(rows.claims, rows.settings, setting)
    return text if setting in rows.settings else "the registered runs are not finished."


def others(rows: Rows) -> str:
    "How many verdicts of F stay in the other settings."
    return changes_line(rows.claims, rows.settings).partition("** ")[2].strip()


def hours(rows: Rows, setting: str) -> str:
    "Core-hours of the runs of a setting, or of all settings and the search; each run had one thread."
    beside = run_seconds(rows, "runs", DEMONSTRATION) + run_seconds(rows, "studies_runs", OLD_SPLIT)
    total = search_seconds(rows) + beside if setting == "all" else 0.0
    total += sum(setting_seconds(rows, name) for name in (rows.settings if setting == "all" else [setting]))
    return f"{total / 3600:.1f}"


def setting_seconds(rows: Rows, name: str) -> float:
    return sum(run_seconds(rows, kind, SETTINGS[name].dataset) for kind in ("studies_runs", "sensitivity_runs"))


def search_seconds(rows: Rows) -> float:
    return sum(run_seconds(rows, f"{n}_runs", d) for d in (DEMONSTRATION, SETTINGS["P"].dataset) for n in SEARCHES)


def run_seconds(rows: Rows, kind: str, dataset: str) -> float:  # 0 if there are no such runs
    return sum(record["seconds"] for record in read_lines(rows.root / "results" / dataset / f"{kind}.jsonl"))


def see(rows: Rows, key: str) -> str:
    "The number of an exhibit, as in Figure 5."
    if key not in rows.numbers:
        raise InputError(f"the text refers to {key} and does not show it")
    return f"{'Figure' if key in FIGURES else 'Table'} {rows.numbers[key]}"


def figure(rows: Rows, key: str) -> str:
    "A published figure under its published caption."
    caption = re.sub(r"^Figure \d+\. ", "", rows.file(f"figures/{FIGURES[key]}.txt"))
    for name, words in DATA_IN_WORDS.items():
        caption = re.sub(rf"\b{name}\b", words, caption)
    caption = f"**{see(rows, key)}.** {escape_markdown(caption)}"
    width = f"{{width={WIDTHS[key]}}}" if key in WIDTHS else ""
    return f"![{caption}](figures/{FIGURES[key]}.png){width}"


def table(rows: Rows, key: str, *caption: str) -> str:
    "A table under a caption, which what is written beside the table joins."
    lines = TABLES[key](rows).strip().splitlines()
    words = " ".join([*caption, *(line.strip() for line in lines if line and not line.startswith("|"))])
    shown = "\n".join(line for line in lines if line.startswith("|"))
    return f": **{see(rows, key)}.** {words}\n\n{shown}"


def table_anchor(rows: Rows, key: str) -> str:
    "Nothing; the table before this field is written in the text."
    return see(rows, key)[:0]


# tables


def data_table(rows: Rows) -> str:
    lines = []
    for name, given in rows.settings.items():
        row = given.rows[0]
        sides = [f"{sum(row['images'][side]):,}" for side in ("train", "val", "test")]
        size = [design(rows, name, what) for what in ("draws", "seeds")]
        classes = [f"{len(row[key])}" for key in ("classes", "minority_classes")]
        lines.append([f"{name}: {WORDS[name]}", *classes, *sides, *size])
    totals = [f"{total:,}" for total in np.sum(list(TABLE_1.values()), axis=0)]
    lines.append(["the paper: FashionStyle14", f"{len(TABLE_1)}", "5", *totals, "1", "1"])
    columns = ["setting", "classes", "rare", "training", "validation", "test", "draws", "seeds"]
    return markdown_table(pd.DataFrame(lines, columns=columns))


def gain_lines(rows: Rows, theirs: str, ours: dict[str, str], retrained: str) -> list[list[str]]:
    "Gain over oversampling at each n_f: the paper's; of VAE sampling; of a classifier that is retrained without a VAE."
    lines = [[theirs, *(f"{gain:+.2f}" for gain in paper_gains())]]
    for name, words in ours.items():  # setting -> its words
        if name in rows.settings:
            have = all(arm in set(rows.scored(name)["arm"]) for arm in ("vae30", "os30", "crt30"))
            for arm, label in (("vae", words), ("crt", f"{words}, {retrained}")):
                a, b = ("+".join(f"{x}{k}_acc" for k in ((30, 50) if have else (50,))) for x in (arm, "os"))
                lines.append([label, *(difference(rows, name, a, b, str(n_f)) for n_f in PAPER_N_F)])
    return lines


def gains_table(rows: Rows) -> str:
    ours = {"F": "setting F: Fashion-MNIST, k = 30 and 50", "P": "setting P: photographs, k = 50"}
    lines = gain_lines(rows, "the paper: FashionStyle14, k = 30 and 50", ours, "re-training without a VAE")
    return markdown_table(pd.DataFrame(lines, columns=["data", *map(n_f_label, PAPER_N_F)]))


def levels(rows: Rows, measure: str, blocks: int | None = None) -> str:  # blocks: how many of LEVELS; None: all
    "Mean and standard deviation over draws of the main methods in setting F, below the paper's numbers."
    place, lines = ("acc_h", "acc").index(measure), []

    def title(text: str) -> None:
        lines.append([f"*{text}*", *[""] * (len(PAPER_N_F) + 1)])

    title("the paper, FashionStyle14")
    for words, kind in zip(LEVELS["by the paper's procedure"].values(), PAPER.values(), strict=True):
        lines.append([words, "", *(f"{values[place]:.2f}" for values in kind)])
    for block, methods in list(LEVELS.items())[:blocks]:
        title(f"setting F, {block}")
        for arms, words in methods.items():
            ending = arms.partition("_")[2]
            values = by_draw(rows.side("F", arms, measure))
            choice = "" if arms in FINE_TUNED else "γ only" if arms == "plain_gamma" else CHOSEN[ending]
            cells = [f"{values[n].mean():.1f} ± {values[n].mean(1).std(ddof=1):.1f}" for n in PAPER_N_F]
            lines.append([words, choice, *cells])
    return markdown_table(pd.DataFrame(lines, columns=[measure, "chosen by", *map(n_f_label, PAPER_N_F)]), 2)


def claims_table(rows: Rows) -> str:
    "The claims: what each says, whose it is, and how it is tested."
    lines = []
    for name, claim in CLAIMS.items():
        n_f = {"each": "each of " + ", ".join(map(str, claim.n_f)), "mean": "mean of all", "peak": "see text"}
        uses = "".join(claim.a + claim.b)
        k = "30, 50" if "{k}" in uses else "50" if "{one}" in uses or "50" in uses else "–"
        whose, family = "paper" if name in OF_PARK else "ours", "primary" if claim.primary else "secondary"
        how = [claim.measure, n_f[claim.parts], k, CHOSEN[claim.ending.removeprefix("_")]]
        lines.append([f"{name}: {claim.text}", whose, family, *how])
    columns = ["claim", "whose", "family", "measure", "$n_f$", "$k$ in F", "classifier chosen by"]
    return markdown_table(pd.DataFrame(lines, columns=columns), len(columns))


def short_table(rows: Rows) -> str:
    "The verdicts of all settings, and what the settings are that it shows."
    text = short_verdicts(rows.claims, rows.settings)
    shown = [name for name in SETTINGS if re.search(rf"\| +{name} +(?=\|)", text.partition("\n")[0])]
    return f"{'; '.join(f'{name}: {WORDS[name]}' for name in shown)}.\n\n{text}"


def parts_table(rows: Rows) -> str:
    "C4 and C5 at each n_f in setting F."
    lines = []
    for name in ("C4", "C5"):
        results = [rows.claims["F", f"{name}, {n_f_label(n_f)}"] for n_f in PAPER_N_F]
        cells = [f"**{r.verdict}** {format_ci(r.tests.mean, *r.tests.interval)}" for r in results]
        lines.append([f"{name}: {rows.claims['F', name].claim.text}", *cells])
    return markdown_table(pd.DataFrame(lines, columns=["claim", *map(n_f_label, PAPER_N_F)]))


def primary_table(rows: Rows) -> str:
    "The tests of the primary claims."
    by_measure = {"pooled acc_h": rows.claims}
    keys = [key for key, result in rows.claims.items() if result.claim.primary and SETTINGS[key[0]].primary]
    order = sorted(keys, key=lambda key: (claim_order(key[1]), list(SETTINGS).index(key[0])))
    frame = pd.DataFrame([claim_line(key, by_measure) for key in order]).rename(columns={"": "setting"})
    frame = frame.rename(columns={"p": "p (Holm)", "equivalence": "p (equivalence)"})
    p = rows.corrected_equivalence
    frame.insert(frame.columns.get_loc("verdict"), "the same (Holm)", [p_text(p[key]) for key in order])
    frame["detectable"] = [f"{rows.claims[key].tests.detectable:.1f}" for key in order]
    frame["claim"] = [claim for _, claim in order]  # their texts are in the table of claims
    unneeded = ["Wilcoxon", *(["setting"] if frame["setting"].nunique() == 1 else [])]
    return markdown_table(frame.drop(columns=unneeded), 2 + ("setting" not in unneeded))


def gamma_table(rows: Rows) -> str:
    "Methods with γ minus ERM, tuned for γ, at each n_f and on average."
    lines = []
    for arm, (words, has_vae) in WITH_GAMMA.items():
        parts = [*map(str, PAPER_N_F), "mean"]
        cells = [difference(rows, "F", f"{arm}_gamma", "plain-tuned-gamma_gamma", n_f) for n_f in parts]
        lines.append([words, has_vae, *cells])
    columns = ["acc_h with γ, minus that of ERM with γ", "VAE", *map(n_f_label, PAPER_N_F), "mean over $n_f$"]
    return markdown_table(pd.DataFrame(lines, columns=columns), 2)


def two_parts_table(rows: Rows, n_f: int = 10) -> str:
    "Accuracy on common and on rare classes, and acc_h."
    lines = []
    for arms, words in TWO_PARTS.items():
        values = [by_draw(rows.side("F", arms, measure))[n_f].mean(1) for measure in ("majority", "minority", "acc_h")]
        lines.append([words, *(f"{v.mean():.1f} ± {v.std(ddof=1):.1f}" for v in values)])
    columns = ["method, and what chose the classifier", "common classes", "rare classes", "acc_h"]
    return markdown_table(pd.DataFrame(lines, columns=columns))


def hyper_table(rows: Rows) -> str:
    "The hyper-parameters of the three stages on both kinds of data, and where the paper gives them."
    columns = [backbone_config(name, "cpu", "fp32") for name in HYPER_NETWORKS]
    vaes = [vae_config(network.width, "fp32") for network in columns]
    lines = []
    for stage, configs in (("1", columns), ("2", vaes), ("3", [HEAD, HEAD])):
        for field, words in HYPER[stage].items():
            source = type(configs[0]).model_fields[field].description
            values = [getattr(config, field) for config in configs]
            source = f"paper, {source}" if source.startswith("section") else "ours"
            lines.append([stage, words, *map(number_or_list, values), source])
    for kind, words in {"plain-tuned": "ERM, tuned", "os-tuned": "oversampling, tuned"}.items():
        pairs = [TUNED.get((name, c.epochs), {}).get(kind) for name, c in zip(HYPER_NETWORKS, columns, strict=True)]
        shown = [" and ".join(f"{value:g}" for value in pair) if pair else "not searched yet" for pair in pairs]
        lines.insert(len(HYPER["1"]), ["1", f"learning rate and weight decay: {words}", *shown, "ours"])
    frame = pd.DataFrame(lines, columns=["stage", "hyper-parameter", "Fashion-MNIST", "photographs", "source"])
    return markdown_table(frame, 2)


def number_or_list(value) -> str:  # e.g. 0.02; or 0, 0.03, 0.3
    return ", ".join(f"{v:g}" for v in sorted(value)) if isinstance(value, tuple) else f"{value:,g}"


def cost_table(rows: Rows) -> str:
    lines = []
    for name, given in rows.settings.items():
        seconds = run_seconds(rows, "studies_runs", given.setting.dataset)
        size = [design(rows, name, what) for what in ("runs", "rows")]
        lines.append([f"{name}: {WORDS[name]}", *size, f"{seconds / 3600:.1f}"])
    for words, kind, file, dataset in (
        ("F with one choice changed (†)", "sensitivity_runs", "sensitivity.jsonl.gz", SETTINGS["F"].dataset),
        ("P at n_f = 10, split by single photographs", "studies_runs", "studies.jsonl.gz", OLD_SPLIT),
        ("the demonstration", "runs", "rows.jsonl", DEMONSTRATION),
    ):
        made = read_lines(rows.root / "results" / dataset / file)
        runs = {(row["n_f"], row["draw"], row["seed"]) for row in made}
        seconds = run_seconds(rows, kind, dataset)
        lines.append([words, f"{len(runs)}", f"{len(made):,}", f"{seconds / 3600:.1f}"])
    seconds = search_seconds(rows)
    lines.append(["searches of hyper-parameters, on Fashion-MNIST and photographs", "", "", f"{seconds / 3600:.1f}"])
    lines.append(["all", "", "", hours(rows, "all")])
    return markdown_table(pd.DataFrame(lines, columns=["runs of", "runs", "results", "core-hours"]))


def listed(rows: Rows, keys) -> str:
    "Exhibits by their numbers, as in Figures 1, 2; Table 2."
    text = []
    for word, kind in (("Figure", FIGURES), ("Table", {key: "" for key in rows.numbers if key not in FIGURES})):
        numbers = sorted(rows.numbers[key] for key in keys if key in kind and key in rows.numbers)
        text += [f"{word}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"] if numbers else []
    return "; ".join(text)


def sources_table(rows: Rows) -> str:
    "Where each exhibit comes from: command, rows, minutes."
    minutes = re.search(MINUTES, rows.file("figures/speed/waits.md"))
    count = f"{len(read_lines(rows.root / 'results' / 'fashion-mnist-lt' / 'rows.jsonl')):,}"
    again = sum(setting_seconds(rows, name) for name in rows.settings)
    registered = sum(len(given.scored) for given in rows.settings.values())
    varied = rows.root / "results" / SETTINGS["F"].dataset / "sensitivity.jsonl.gz"
    rest = {*rows.numbers} - {*OF_PAPER, *OF_EVIDENCE}
    made = f"{float(minutes[1]) / 60:.0f}" if minutes else "–"
    lines = [
        [listed(rows, OF_PAPER), "`make paper`", count, made],
        [listed(rows, OF_EVIDENCE), "`make evidence`", f"{registered:,}", "about 2"],
        ["the results behind these, and those marked †", "`make evidence RERUN=1`",
         f"{registered + len(read_lines(varied)):,}", f"{again / 120:,.0f}"],
        [f"{listed(rows, rest)}, this article", "`make article`", "all", "about 1"],
    ]
    return markdown_table(pd.DataFrame(lines, columns=["exhibit", "command", "results", "minutes"]), 2)


HYPER_NETWORKS = ("resnet-small", "tf_efficientnet_lite0")
HYPER = {  # stage -> field of its configuration -> words
    "1": {"side": "pixels of a side", "width": "D, features", "epochs": "epochs", "batch": "batch",
          "lr": "highest learning rate", "weight_decay": "weight decay", "momentum": "momentum (Nesterov)",
          "warmup": "share of the steps in which the rate rises"},
    "2": {"hidden": "hidden width", "latents": "L, latents", "epochs": "epochs", "batch": "batch",
          "lr": "learning rate (Adam)", "min_std": "least standard deviation of a feature, as a part of the largest",
          "logvar_clip": "bound of the log-variance"},
    "3": {"epochs": "epochs", "batch": "batch", "lr": "highest learning rate, times a factor",
          "factors": "factors that are tried", "decays": "weight decays that are tried",
          "momentum": "momentum (Nesterov)"},
}  # fmt: skip
FIGURES = {  # key -> folder and name below figures/
    "method": "fashion-mnist-lt/figure1",
    "classes": "fashion-mnist-lt/figure2",
    "vae-loss": "fashion-mnist-lt/figure3",
    "head-loss": "fashion-mnist-lt/figure4",
    "comparison": "fashion-mnist-registered/comparison_10",
    "ablation": "fashion-mnist-registered/ablation",
}
WIDTHS = {"method": "80%", "classes": "80%", "comparison": "85%", "ablation": "75%",
          "vae-loss": "80%", "head-loss": "80%"}  # fmt: skip
TABLES: dict[str, Callable[[Rows], str]] = {
    "data": data_table,
    "claims": claims_table,
    "paper": lambda rows: levels(rows, "acc_h"),
    "paper-acc": lambda rows: levels(rows, "acc", 2),
    "gains": gains_table,
    "short": short_table,
    "parts": parts_table,
    "choices": lambda rows: rows.file("figures/evidence/choices.md"),
    "primary": primary_table,
    "gamma": gamma_table,
    "two-parts": two_parts_table,
    "images": lambda rows: image_table(rows.settings["F"], rows.claims),
    "hyper": hyper_table,
    "cost": cost_table,
    "sources": sources_table,
}
OF_PAPER = ("method", "classes", "vae-loss", "head-loss")
OF_EVIDENCE = ("comparison", "ablation", "short", "primary", "images", "choices")
CHOSEN = {"": "acc_h", "acc": "accuracy", "gamma": "acc_h with γ"}  # ending of a measure -> what chose the classifier
OF_PARK = ("C1", "C2", "C3")
WITH_GAMMA = {  # arm -> words, whether it needs a VAE
    "vae50": ("VAE sampling ×50", "yes"), "z50": ("z alone ×50", "yes"), "mu50": ("[x; μ] ×50, no noise", "yes"),
    "crt50": ("classifier re-training ×50", "no"), "pca128": ("principal components ×50", "no"),
    "avg": ("averaged heads", "no"), "la": ("logit-adjusted loss", "no"), "ldam-drw": ("LDAM-DRW", "no"),
    "os50": ("oversampling ×50", "no"),
}  # fmt: skip
TWO_PARTS = {
    "plain": "ERM", "os50": "oversampling ×50", "os-tuned50": "tuned oversampling ×50",
    "vae50_acc": "VAE sampling ×50, by accuracy", "crt50_acc": "classifier re-training ×50, by accuracy",
    "vae50": "VAE sampling ×50, by acc_h", "crt50": "classifier re-training ×50, by acc_h",
    "plain_gamma": "ERM, γ by acc_h", "vae50_gamma": "VAE sampling ×50, with γ by acc_h",
    "crt50_gamma": "classifier re-training ×50, with γ by acc_h",
}  # fmt: skip
FINE_TUNED = ("plain", "os30", "os50", "os-tuned50", "os-aug50")  # they have one pair, not one a run
LEVELS = {  # blocks of Table 2
    "by the paper's procedure": {
        "plain": "ERM", "os30": "oversampling ×30", "os50": "oversampling ×50",
        "vae30_acc": "VAE sampling ×30", "vae50_acc": "VAE sampling ×50",
    },
    "the same without a VAE": {
        "crt30_acc": "classifier re-training ×30", "crt50_acc": "classifier re-training ×50",
    },
    "classifiers chosen by acc_h, and tuned oversampling": {
        "os-tuned50": "tuned oversampling ×50", "os-aug50": "tuned oversampling ×50, augmented",
        "vae50": "VAE sampling ×50", "crt50": "classifier re-training ×50", "mu50": "[x; μ] ×50, no noise",
        "z50": "z alone ×50", "pca128": "principal components ×50", "aug50": "augmented images ×50",
        "la": "logit-adjusted loss", "ldam-drw": "LDAM-DRW",
    },
    "γ subtracted from the logits of common classes": {
        "plain_gamma": "ERM", "plain-tuned-gamma_gamma": "ERM, tuned for this",
        "crt50_gamma": "classifier re-training ×50", "vae50_gamma": "VAE sampling ×50", "ldam-drw_gamma": "LDAM-DRW",
    },
}  # fmt: skip
FIELDS = {
    "value": value, "difference": difference, "equivalence": equivalence, "overfit": overfit, "claim": claim,
    "require": require, "design": design, "std": std, "varied": varied, "sureness": sureness,
    "survivors": survivors, "family": family, "latent": latent, "search": search,
    "constant": constant, "paper": paper, "senders": senders,
    "changes": changes, "others": others, "hours": hours, "see": see, "figure": figure, "table": table,
    "table-anchor": table_anchor,
}  # fmt: skip


# Korean

VERDICTS_KO = {"supported": "지지", "contradicted": "반박", "equivalent": "동등", "not decided": "판정 보류"}
SETTINGS_KO = {"F": "Fashion-MNIST", "P": "의류 사진"}
CLAIMS_KO = {
    "C1": "VAE 샘플링 > 오버샘플링(n_f = 10, 30, 50 모두)",
    "C3": "위와 같은 비교, 전체 정확도(acc) 기준",
    "C12": "VAE 샘플링 > 학습률과 가중치 감쇠를 별도로 탐색한 오버샘플링",
    "C4": "VAE 샘플링 > VAE 없이 다시 학습한 선형 분류기",
    "C5": "VAE 샘플링 > [x; μ]",
    "C10": "LDAM-DRW > 일반 미세 조정(두 방법 모두 γ 적용)",
}
UNHELPFUL_KO = "판정 제외: 탐색으로 개선되지 않음"
SUMMARY_KO = {  # claim -> sentence if supported, contradicted, equivalent, not decided
    "C1": ("논문의 절차를 따르면 VAE 샘플링은 오버샘플링보다 acc_h가 높다(n_f = 10, 30, 50 모두).",
           "논문의 절차를 따르면 n_f = 10, 30, 50 중 하나 이상에서 오버샘플링이 VAE 샘플링보다 acc_h가 높다.",
           "논문의 절차를 따르면 VAE 샘플링과 오버샘플링은 ±1%p 이내에서 acc_h가 동등하다(n_f = 10, 30, 50 모두).",
           "논문의 절차를 따를 때 VAE 샘플링이 오버샘플링보다 acc_h가 높은지에 대해서는 판정을 보류한다."),
    "C4": ("VAE 샘플링은 VAE 없이 다시 학습한 선형 분류기보다 평균 acc_h가 높다.",
           "VAE 없이 다시 학습한 선형 분류기는 VAE 샘플링보다 평균 acc_h가 높다.",
           "VAE 없이 다시 학습한 선형 분류기는 VAE 샘플링과 ±1%p 이내에서 평균 acc_h가 동등하다.",
           "VAE 샘플링이 VAE 없이 다시 학습한 선형 분류기보다 평균 acc_h가 높은지에 대해서는 판정을 보류한다."),
    "C10": ("두 방법 모두에 γ(아래 설명)를 적용하면 LDAM-DRW는 일반 미세 조정보다 평균 acc_h가 높다.",
            "두 방법 모두에 γ(아래 설명)를 적용하면 일반 미세 조정은 LDAM-DRW보다 평균 acc_h가 높다.",
            "두 방법 모두에 γ(아래 설명)를 적용하면 일반 미세 조정은 LDAM-DRW와 ±1%p 이내에서 평균 acc_h가 동등하다.",
            "두 방법 모두에 γ(아래 설명)를 적용할 때 LDAM-DRW가 일반 미세 조정보다 평균 acc_h가 높은지에 대해서는"
            " 판정을 보류한다."),
}  # fmt: skip


def answer_ko(rows: Rows) -> str:
    "The verdicts of F and P in Korean: sentences, the gains beside the paper's, and a table of claims."
    text = []
    for name, words in SETTINGS_KO.items():
        found = {claim: rows.claims[name, claim] for claim in SUMMARY_KO}
        sentences = [SUMMARY_KO[c][list(VERDICTS_KO).index(result.verdict)] for c, result in found.items()]
        verdicts = {claim: result.verdict for claim, result in found.items()}
        if (verdicts.get("C1"), verdicts.get("C4")) == ("supported", "equivalent"):
            place = list(found).index("C4") + 1
            sentences.insert(place, "따라서 n_f에 대한 평균으로 보면 이와 같은 향상은 VAE 없이도 얻을 수 있다.")
        text.append(f"**{words}:** {' '.join(sentences)}\n")
    gains = gain_lines(rows, "논문 표 2(FashionStyle14)", SETTINGS_KO, "VAE 없이 다시 학습한 선형 분류기")
    columns = ["오버샘플링 대비 acc_h 향상 폭(%p)", *map(n_f_label, PAPER_N_F)]
    text.append(markdown_table(pd.DataFrame(gains, columns=columns)))
    lines = []
    for claim, words in CLAIMS_KO.items():
        results = {name: rows.claims[name, claim] for name in SETTINGS_KO}
        cells = {name: f"**{VERDICTS_KO[result.verdict]}** {format_ci(result.tests.mean, *result.tests.interval)}"
                 for name, result in results.items()}  # fmt: skip
        cells |= {name: UNHELPFUL_KO for name in cells if is_void(claim, rows.settings[name])}
        lines.append([words, *cells.values()])
    text.append(markdown_table(pd.DataFrame(lines, columns=["가설", *SETTINGS_KO.values()])))
    text.append("처음 두 가설에는 차이를 표준 오차로 나눈 값이 가장 작은 n_f의 결과를,"
                " 나머지에는 n_f에 대한 평균을 적었다.")  # fmt: skip
    return "\n".join(text)


def korean_page(root: Path, rows: Rows) -> str:
    "README.ko.md with its block filled."
    return update_blocks((root / KOREAN).read_text(encoding="utf-8"), {"article/answer_ko": answer_ko(rows)})


# filling


def number_exhibits(text: str) -> dict[str, int]:
    "Figures and tables are numbered in the order in which the text shows them."
    numbers = {}
    for kind in ("figure", "table(?:-anchor)?"):
        shown = re.findall(rf"\{{\{{{kind} ([\w-]+)", text)
        numbers |= {key: i for i, key in enumerate(dict.fromkeys(shown), 1)}
    return numbers


def fill_field(content: str, rows: Rows) -> str:
    name, *arguments = content.split()
    if name not in FIELDS:
        raise InputError(f"the field {{{{{content}}}}} of {SOURCE} is unknown; known are {', '.join(FIELDS)}")
    try:
        return FIELDS[name](rows, *arguments)
    except InputError as e:
        raise InputError(f"the field {{{{{content}}}}} of {SOURCE} cannot be filled: {e}") from None
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"the field {{{{{content}}}}} of {SOURCE} has wrong arguments: {e!r}") from None


def fill(text: str, rows: Rows) -> str:
    "The text with all fields filled."
    rows.numbers |= number_exhibits(text)
    text = FIELD.sub(lambda match: fill_field(match[1], rows), text)
    if "{{" in text:
        raise InputError(f"{SOURCE} has a field that is not closed")
    text = re.sub(r"(?<=[\s(\[])-(?=\d)", "−", text)
    text = re.sub(r"(\[[+−][\d.]+,) (?=[+−][\d.]+\])", "\\1\u00a0", text)  # an interval stays on one line
    plain = r"```.*?```|\$[^$]*\$|`[^`]*`|\bn_f\b"  # n_f outside of code and mathematics
    text = re.sub(plain, lambda match: "$n_f$" if match[0] == "n_f" else match[0], text, flags=re.DOTALL)
    return re.sub(r"\n{3,}", "\n\n", text)


# making


def released(root: Path) -> datetime:
    "The date of CITATION.cff: the documents carry it, so that the same rows give the same bytes."
    day = re.search(r"^date-released: *(\S+)", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    return datetime.fromisoformat(day[1]).replace(tzinfo=UTC)


def digest(root: Path, text: str) -> str:
    "What the documents are made of: the filled text, its references and templates, and the pictures it shows."
    shown = re.findall(r"\]\((figures/[\w/.-]+)\.png\)", text)
    files = [f"article/{name}" for name in ("references.bib", "style.css", "template.typ")]
    files += [f"{name}.{kind}" for name in shown for kind in ("png", "svg")]
    parts = [text.encode(), *((root / name).read_bytes() for name in files)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def with_alternative(root: Path, image: str, name: str) -> str:
    "A picture of the PDF with its caption as the alternative text."
    caption = (root / f"{name}.txt").read_text(encoding="utf-8").strip()
    return f'{image}, alt: "{caption.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"'


def build(root: Path, text: str) -> None:
    "Write article.html by pandoc, and article.pdf by pandoc and typst."
    import manimgx_fonts_cjk
    import pypandoc
    import typst

    work, out = root / "runs" / "article", root / "article"
    work.mkdir(parents=True, exist_ok=True)
    day = released(root)
    options = ["--standalone", "--citeproc", f"--bibliography={out / 'references.bib'}", "--columns=220"]
    options += ["--number-sections", f"--metadata=date:{day:%Y-%m-%d}", f"--metadata=digest:{digest(root, text)}"]
    form = "markdown-implicit_figures+implicit_figures-tex_math_single_backslash"
    html = [*options, "--mathml", "--embed-resources", f"--resource-path={root}", f"--css={out / 'style.css'}"]
    html += [f'--variable=header-includes:<meta name="rows" content="{digest(root, text)}">']
    page = pypandoc.convert_text(text, "html5", form, extra_args=html)
    atomic_write(out / "article.html", page.encode())
    drawn = re.sub(r"\]\(figures/([\w/-]+)\.png\)", r"](/figures/\1.svg)", text)
    options += [f"--template={out / 'template.typ'}"]
    for name in ("title", "author"):  # of the PDF's metadata
        found = re.search(rf'^{name}: "(.*)"$', text, re.MULTILINE)
        options.append(f"--variable={name}-meta:{found[1]}")
    source = pypandoc.convert_text(drawn, "typst", form, extra_args=options)
    source = re.sub(
        r'image\("/(figures/[\w/-]+)\.svg"', lambda match: with_alternative(root, *match.group(0, 1)), source
    )
    atomic_write(work / "article.typ", source.encode())
    fonts = [str(Path(manimgx_fonts_cjk.__file__).parent)]
    pdf = typst.compile(str(work / "article.typ"), root=str(root), font_paths=fonts, ignore_system_fonts=True,
                        timestamp=int(day.timestamp()))  # fmt: skip
    atomic_write(out / "article.pdf", pdf)


def main(*arguments: str) -> None:
    root = project_root()
    try:
        rows = Rows(root, read_settings(str(root / "results")))
        text = fill((root / SOURCE).read_text(encoding="utf-8"), rows)
        if "--text" in arguments:
            sys.stdout.write(text)
            return
        build(root, text)
        atomic_write(root / KOREAN, korean_page(root, rows).encode())
    except InputError as e:
        sys.exit(str(e))
    size = (root / "article" / "article.pdf").stat().st_size
    print(f"article/article.pdf ({size / 1e6:.1f} MB) and article/article.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
