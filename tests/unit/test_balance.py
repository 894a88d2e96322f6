"γ for the scores of any classifier: against all γ, scikit-learn and a known truth; and what is refused."

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from matplotlib import pyplot as plt
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    LeaveOneOut,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_vae import balance
from fashion_vae.balance import BalancedClassifierCV, BalanceDisplay, choose_gamma
from fashion_vae.lib.files import InputError
from fashion_vae.lib.metrics import confusion, metrics, with_gamma

SCORES = {"acc_h": "acc_h", "acc_h_class": "acc_h_class", "balanced_accuracy": "mean_recall"}


@pytest.fixture(autouse=True)
def quiet():
    "Small samples warn; the tests of warnings record them."
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="γ = |minority = 'auto'")
        yield
    plt.close("all")


def blobs(n_rare: int = 12, seed: int = 0, n_common: int = 60):
    "Two common classes, a and b, and two rare ones, c and d, of Gaussian points in a plane."
    rng = np.random.default_rng(seed)
    y = np.repeat(["a", "b", "c", "d"], [n_common, n_common, n_rare, n_rare])
    centres = {"a": (0, 0), "b": (2, 0), "c": (0, 2), "d": (2, 2)}
    return rng.normal(size=(len(y), 2)) + np.array([centres[label] for label in y]), y


# scikit-learn's own checks: none is expected to fail


@parametrize_with_checks([
    BalancedClassifierCV(LogisticRegression(), random_state=0, n_bootstrap=20),
    BalancedClassifierCV(GaussianNB(), scoring="balanced_accuracy", n_bootstrap=0),  # predict_proba alone
    BalancedClassifierCV(DecisionTreeClassifier(random_state=0), scoring="acc_h_class", n_bootstrap=0),
    BalancedClassifierCV(LogisticRegression(), method="prior"),
])  # fmt: skip
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


# the search


@st.composite
def small_cases(draw):  # scores (N, C), labels, rare labels
    classes = draw(st.integers(2, 4))
    n = draw(st.integers(classes, 14))
    values = st.integers(-6, 6).map(lambda v: v / 4)  # many ties
    scores = np.array(draw(st.lists(st.lists(values, min_size=classes, max_size=classes), min_size=n, max_size=n)))
    y = np.append(np.arange(classes), draw(st.lists(st.integers(0, classes - 1), min_size=n - classes,
                                                    max_size=n - classes))).astype(int)  # fmt: skip
    return scores, y, draw(st.integers(1, classes - 1))


@given(small_cases(), st.sampled_from(list(SCORES)))
@settings(max_examples=150, deadline=None)
def test_no_gamma_is_better(case, scoring):
    scores, y, n_rare = case
    rare = tuple(range(n_rare))
    choice = choose_gamma(scores, y, minority=list(rare), scoring=scoring, n_bootstrap=0)

    def score_at(gamma: float) -> float:
        return metrics(confusion(y, with_gamma(scores, gamma, rare), scores.shape[1]), rare)[SCORES[scoring]]

    every = [score_at(gamma) for gamma in np.arange(-26, 27) / 8 + 1 / 16]  # one in every gap
    assert choice.score == pytest.approx(max(every)) == score_at(choice.gamma)
    assert choice.curve["score"].tolist() == pytest.approx([score_at(gamma) for gamma in choice.curve["gamma"]])
    plain = metrics(confusion(y, scores.argmax(1), scores.shape[1]), rare)
    assert choice.score_without == pytest.approx(plain[SCORES[scoring]])
    at = choice.curve.set_index("gamma").loc[choice.gamma]
    assert at["score"] == choice.score and 0 <= at["common"] <= 1 and 0 <= at["rare"] <= 1


@pytest.mark.parametrize("scoring", SCORES)
def test_the_score_of_answers_is_that_of_the_confusion_counts(scoring):
    rng = np.random.default_rng(1)
    y, predicted = np.arange(50) % 5, rng.integers(0, 5, 50)
    expected = metrics(confusion(y, predicted, 5), (0, 3))[SCORES[scoring]]
    rare = np.isin(np.arange(5), (0, 3))
    assert balance.score_of(predicted, y, rare, scoring) == pytest.approx(expected)


def test_a_class_without_an_image_has_no_recall_to_average():
    scores, y = np.eye(4)[[0, 1, 2, 2]], np.array([0, 1, 2, 2])
    given = {"classes": np.arange(4), "minority": [2], "n_bootstrap": 0}
    assert choose_gamma(scores, y, scoring="balanced_accuracy", **given).score == 1
    assert choose_gamma(scores, y, scoring="acc_h_class", **given).score == 1


def test_two_scores_of_two_classes_are_one():
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(90, int), np.ones(40, int)]
    one = rng.normal(size=130) + 2 * y - 2
    both = choose_gamma(np.stack([-one / 2, one / 2], 1), y, minority=[1], random_state=0)
    assert choose_gamma(one, y, minority=[1], random_state=0).gamma == pytest.approx(both.gamma)


# the interval


def test_the_interval_holds_the_true_gamma():
    """Four Gaussian classes, two of them rare; the scores of the common ones are 1.5 higher.

    With this many images the interval holds the truth in about 95 % of cases. Even if it were 94 %,
    fewer than 85 of 100 would hold it with a probability below 1 in 1000.
    """
    rng, held, widths = np.random.default_rng(7), 0, []
    y = np.r_[np.arange(400) % 2, 2 + np.arange(300) % 2]
    for _ in range(100):
        scores = rng.normal(size=(700, 4)) + 2 * np.eye(4)[y] + [1.5, 1.5, 0, 0]
        low, high = choose_gamma(scores, y, minority=[2, 3], n_bootstrap=100, random_state=0).interval
        held += low <= 1.5 <= high
        widths.append(high - low)
    assert held >= 85 and 0.2 < np.mean(widths) < 1


def test_the_bootstrap_keeps_the_number_of_images_of_each_class():
    rng = np.random.default_rng(3)
    y = rng.permutation(np.repeat([0, 2, 1], [30, 20, 10]))
    seen = []
    given = {"margin": np.arange(60.0), "common": y == 0, "rare": y > 0, "n_common": 30, "weight": y}
    original = balance.best_gamma
    try:
        balance.best_gamma = lambda **drawn: seen.append(drawn) or {"gamma": 0.0}
        balance.bootstrap_gammas(given, y, "acc_h", 5, np.random.RandomState(0))
    finally:
        balance.best_gamma = original
    for drawn in seen:
        assert np.bincount(drawn["weight"]).tolist() == [30, 10, 20] and drawn["n_common"] == 30
    assert len({tuple(drawn["margin"]) for drawn in seen}) == 5


def test_few_rare_images_warn_in_one_sentence():
    X, y = blobs(n_rare=4)
    model = BalancedClassifierCV(LogisticRegression(), random_state=0)
    with pytest.warns(UserWarning, match=r"on 8 held-out images of rare classes, .* needed are 30 images") as seen:
        model.fit(X, y)
    assert len(seen) == 1 and seen[0].filename == __file__ and str(seen[0].message) == model.choice_.warning
    assert "\n" not in model.choice_.warning and ". " not in model.choice_.warning
    scores, column = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    with pytest.warns(UserWarning, match="10 held-out images") as seen:
        choose_gamma(scores, column, minority=[1])
    assert seen[0].filename == __file__


def test_enough_images_and_a_narrow_interval_do_not_warn():
    X, y = blobs(n_rare=200, n_common=900)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BalancedClassifierCV(LogisticRegression(), random_state=0).fit(X, y)
    assert model.choice_.warning == "" and model.gamma_interval_[0] <= model.gamma_ <= model.gamma_interval_[1]


# against scikit-learn


@pytest.mark.parametrize("seed", range(3))
def test_with_two_classes_it_is_the_threshold_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    y = (np.arange(400) % 10 == 0).astype(int)
    X = rng.normal(size=(400, 3)) + y[:, None]
    inner = LogisticRegression().fit(X[:200], y[:200])
    X, y = X[200:], y[200:]
    given = {"cv": "prefit", "refit": False, "response_method": "decision_function"}
    ours = BalancedClassifierCV(inner, cv="prefit", minority=[1], scoring="balanced_accuracy", n_bootstrap=0).fit(X, y)
    assert balanced_accuracy_score(y, ours.predict(X)) == pytest.approx(ours.best_score_)
    coarse = TunedThresholdClassifierCV(inner, thresholds=20, **given).fit(X, y)
    assert coarse.best_score_ <= ours.best_score_ + 1e-12
    # a threshold in every gap: large scores are those of class 1, so the threshold is minus γ
    thresholds = np.sort(-ours.curve_["gamma"].to_numpy())
    dense = TunedThresholdClassifierCV(inner, thresholds=thresholds, **given).fit(X, y)
    assert dense.best_score_ == pytest.approx(ours.best_score_)
    best = ours.curve_["score"] == ours.curve_["score"].max()
    assert dense.best_threshold_ in (-ours.curve_["gamma"][best]).tolist()
    if best.sum() == 1:
        assert dense.predict(X).tolist() == ours.predict(X).tolist()


def test_out_of_fold_it_is_at_least_as_good_as_scikit_learn():
    rng = np.random.default_rng(0)
    y = (np.arange(500) % 10 == 0).astype(int)
    X = rng.normal(size=(500, 3)) + y[:, None]
    folds = StratifiedKFold(5)
    ours = BalancedClassifierCV(LogisticRegression(), cv=folds, scoring="balanced_accuracy", n_bootstrap=0).fit(X, y)
    theirs = TunedThresholdClassifierCV(LogisticRegression(), cv=folds, response_method="decision_function").fit(X, y)
    scores = cross_val_predict(LogisticRegression(), X, y, cv=folds, method="decision_function")
    mine, other = (balanced_accuracy_score(y, scores >= t) for t in (-ours.gamma_, theirs.best_threshold_))
    assert mine == pytest.approx(ours.best_score_) and mine >= other - 1e-12
    assert np.mean(ours.predict(X) == theirs.predict(X)) > 0.9


def test_the_prior_correction_subtracts_log_frequencies():
    X, y = blobs()
    model = BalancedClassifierCV(LogisticRegression(), method="prior").fit(X, y)
    expected = model.estimator_.decision_function(X) - np.log(np.array([60, 60, 12, 12]) / 144)
    assert model.decision_function(X) == pytest.approx(expected) and model.gamma_ is model.curve_ is None
    assert model.predict(X).tolist() == model.classes_[expected.argmax(1)].tolist()


# the estimator


def test_it_lowers_the_common_classes_and_passes_probabilities_through():
    X, y = blobs()
    model = BalancedClassifierCV(LogisticRegression(), random_state=0).fit(X, y)
    inner = LogisticRegression().fit(X, y)
    assert model.minority_.tolist() == ["c", "d"] and model.gamma_ > 0
    shifted = inner.decision_function(X) - model.gamma_ * np.array([1, 1, 0, 0])
    assert model.decision_function(X) == pytest.approx(shifted)
    answers = with_gamma(inner.decision_function(X), model.gamma_, (2, 3))
    assert model.predict(X).tolist() == model.classes_[answers].tolist()
    assert model.predict_proba(X) == pytest.approx(inner.predict_proba(X))
    assert model.best_score_ >= model.choice_.score_without
    assert not hasattr(BalancedClassifierCV(SVC()), "predict_proba")


def test_the_scores_are_out_of_fold():
    X, y = blobs()
    model = BalancedClassifierCV(LogisticRegression(), cv=4, n_bootstrap=30, random_state=1).fit(X, y)
    scores = cross_val_predict(LogisticRegression(), X, y, cv=StratifiedKFold(4), method="decision_function")
    order = np.concatenate([held for _, held in StratifiedKFold(4).split(X, y)])
    choice = choose_gamma(scores[order], y[order], n_bootstrap=30, random_state=1)
    assert (choice.gamma, choice.interval, choice.score) == (model.gamma_, model.gamma_interval_, model.best_score_)
    with parallel_config("threading"):
        again = BalancedClassifierCV(LogisticRegression(), cv=4, n_bootstrap=30, random_state=1, n_jobs=2).fit(X, y)
    assert again.gamma_ == model.gamma_ and again.curve_.equals(model.curve_)


def test_it_takes_what_scikit_learn_takes():
    X, y = blobs()
    frame = pd.DataFrame(X, columns=["height", "width"])
    inner = make_pipeline(StandardScaler(), LogisticRegression())
    model = BalancedClassifierCV(inner, random_state=0).fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == ["height", "width"] and model.n_features_in_ == 2
    grid = {"estimator__logisticregression__C": [0.1, 1], "method": ["gamma", "prior"]}
    search = GridSearchCV(clone(model), grid, cv=2)
    assert set(search.fit(frame, y).predict(frame)) <= set("abcd")
    numbers = BalancedClassifierCV(GaussianNB(), minority=[2, 3]).fit(X, np.unique(y, return_inverse=True)[1])
    assert numbers.minority_.tolist() == [2, 3]
    weight = np.where(y == "a", 0.5, 1.0)
    weighted = BalancedClassifierCV(LogisticRegression(), random_state=0).fit(X, y, sample_weight=weight)
    expected = LogisticRegression().fit(X, y, sample_weight=weight).coef_
    assert weighted.estimator_.coef_ == pytest.approx(expected)


@pytest.mark.parametrize("cv", [2, StratifiedKFold(3), ShuffleSplit(4, random_state=0), LeaveOneOut(), "list"])
def test_folds_are_a_number_or_a_splitter(cv):
    X, y = blobs()
    cv = list(StratifiedKFold(3).split(X, y)) if cv == "list" else cv
    assert BalancedClassifierCV(GaussianNB(), cv=cv, n_bootstrap=0).fit(X, y).gamma_ > -5


def test_groups_stay_together():
    X, y = blobs(n_rare=12)
    groups = np.arange(len(y)) // 3
    seen = []

    class Recording(LogisticRegression):
        def fit(self, X, y):
            seen.append({tuple(x) for x in X})
            return super().fit(X, y)

    for cv in (4, GroupKFold(4)):
        seen.clear()
        BalancedClassifierCV(Recording(), cv=cv, n_bootstrap=0).fit(X, y, groups=groups)
        assert len(seen) == 5  # four folds, and all images
        for part in seen[:4]:
            inside = np.array([tuple(x) in part for x in X])
            assert all(len(set(inside[groups == g])) == 1 for g in groups)
    with pytest.raises(InputError, match="at most 60 images of a class, 1 groups: two folds are needed"):
        BalancedClassifierCV(LogisticRegression()).fit(X, y, groups=np.zeros(len(y)))


def test_a_single_split_can_be_kept():
    X, y = blobs()
    split = PredefinedSplit(np.where(np.arange(len(y)) % 3 == 0, 0, -1))
    model = BalancedClassifierCV(LogisticRegression(), cv=split, refit=False, n_bootstrap=0).fit(X, y)
    train = np.arange(len(y)) % 3 != 0
    assert model.estimator_.coef_ == pytest.approx(LogisticRegression().fit(X[train], y[train]).coef_)
    assert model.choice_.n_rare == 8


# small samples


def test_a_class_with_one_image_is_left_out_of_the_choice():
    X, y = blobs(n_rare=8)
    X, y = X[:-7], y[:-7]  # one image of class d
    model = BalancedClassifierCV(LogisticRegression(), random_state=0).fit(X, y)
    assert model.choice_.n_rare == 8 and model.classes_.tolist() == list("abcd")
    X, y = X[:-8], np.where(y[:-8] == "d", "c", y[:-8])
    only = BalancedClassifierCV(LogisticRegression(), minority=["d"])
    with pytest.raises(InputError, match=r"^no image of a rare class \('d'\) is held out from a model that knows"):
        only.fit(np.r_[X, [[2, 2]]], np.append(y, "d"))


def test_a_fold_that_does_not_know_the_rare_classes_is_left_out():
    X, y = blobs(n_rare=6)
    fold = np.arange(len(y)) % 3
    fold[y == "c"] = [0, 0, 0, 1, 1, 1]
    fold[y == "d"] = 0  # without fold 0 nobody knows d
    model = BalancedClassifierCV(LogisticRegression(), cv=PredefinedSplit(fold), n_bootstrap=0).fit(X, y)
    assert model.choice_.n_rare == 6 and np.isfinite(model.gamma_)
    fold[np.isin(y, ["c", "d"])] = 0
    with pytest.raises(InputError, match=r"no image of a rare class \('c', 'd'\)"):
        BalancedClassifierCV(LogisticRegression(), cv=PredefinedSplit(fold)).fit(X, y)


def test_two_rare_images_are_enough_to_run():
    X, y = blobs(n_rare=2)
    for scoring in SCORES:
        model = BalancedClassifierCV(LogisticRegression(), scoring=scoring, random_state=0).fit(X, y)
        assert model.choice_.n_rare == 4 and np.isfinite(model.gamma_interval_).all()


def test_without_a_rare_class_nothing_is_lowered():
    X, y = blobs(n_rare=60)
    model = BalancedClassifierCV(LogisticRegression())
    with pytest.warns(UserWarning, match="no class has fewer than half the mean of 60 images"):
        model.fit(X, y)
    assert model.gamma_ == 0 and model.minority_.size == 0 and model.gamma_interval_ is model.curve_ is None
    assert model.predict(X).tolist() == model.estimator_.predict(X).tolist()
    with pytest.raises(InputError, match="no class has fewer than half the mean of 60 images"):
        choose_gamma(model.decision_function(X), y)


# what is refused, each in one sentence

SCORES_OF_FOUR = np.eye(3)[[0, 1, 2, 0]]
LABELS = np.array([0, 1, 2, 0])
BAD_ARRAYS = [
    ({"scores": [[0, 1], [np.nan, 0]], "y": [0, 1]}, r"scores: 1 of 4 values are not finite; the first is nan in line"),
    ({"scores": [[0, 1], [0, np.inf]], "y": [0, 1]}, r"the first is inf in line 1, column 1"),
    ({"scores": [["a", "b"]]}, r"scores: allowed is an array of numbers"),
    ({"scores": np.zeros((4, 1))}, r"scores: shape \(4, 1\); allowed is \(N, C\)"),
    ({"scores": np.zeros((4, 2, 2))}, r"scores: shape \(4, 2, 2\)"),
    ({"scores": np.zeros((0, 3)), "y": []}, r"scores: shape \(0, 3\)"),
    ({"y": [0, 1, 2]}, r"scores have 4 lines and y has 3 labels"),
    ({"y": [[0], [1], [2], [0]]}, r"y: shape \(4, 1\); allowed is \(N,\)"),
    ({"y": [0, 1, 0, 1]}, r"scores have 3 columns for 2 classes \(0, 1\); allowed is one each"),
    ({"y": [0, 0, 0, 0]}, r"y has 1 class \(0\)"),
    ({"classes": [0, 1, 1]}, r"classes holds a label twice \(0, 1, 1\)"),
    ({"classes": [0, 1, 7]}, r"y: label 2 has no column; the columns are those of 0, 1, 7"),
    ({"minority": [5]}, r"minority holds 5; allowed are labels out of 0, 1, 2"),
    ({"minority": np.array([5])}, r"minority holds 5; allowed"),
    ({"minority": []}, r"minority holds no label"),
    ({"minority": "c"}, r"minority = 'c': allowed are \"auto\" or a list of labels out of 0, 1, 2"),
    ({"minority": 2}, r"minority = 2: allowed are"),
    ({"minority": [0, 1, 2]}, r"minority holds all 3 classes; at least one class has to be common"),
    ({"minority": [3], "classes": [1, 0, 3], "y": [0, 1, 0, 1]}, r"y has no image of a rare class \(3\)"),
    ({"minority": [0, 1], "classes": [1, 0, 3], "y": [0, 1, 0, 1]}, r"y has no image of a common class \(3\)"),
    ({"scoring": "accuracy"}, r"scoring = 'accuracy': allowed are acc_h, acc_h_class, balanced_accuracy"),
    ({"n_bootstrap": -1}, r"n_bootstrap = -1: allowed is a whole number from 0"),
    ({"n_bootstrap": True}, r"n_bootstrap = True"),
]


@pytest.mark.parametrize("wrong,message", BAD_ARRAYS)
def test_wrong_arrays_are_refused(wrong, message):
    values = {"scores": SCORES_OF_FOUR, "y": LABELS, "minority": [2]} | wrong
    with pytest.raises(InputError, match=message) as error:
        choose_gamma(values.pop("scores"), values.pop("y"), **values)
    assert "\n" not in str(error.value) and ". " not in str(error.value)


BAD_PARAMETERS = [
    ({"scoring": "f1"}, "scoring = 'f1': allowed are"),
    ({"method": "priors"}, "method = 'priors': allowed are gamma, prior; did you mean prior"),
    ({"response_method": "predict"}, "response_method = 'predict': allowed are auto, decision_function, predict_proba"),
    ({"cv": 1}, "cv = 1 with at most 60 images of a class: two folds are needed"),
    ({"cv": "folds"}, "cv = 'folds': allowed are prefit"),
    ({"cv": None}, "cv = None: allowed are a number from 2"),
    ({"refit": False}, "refit = False with 5 splits: allowed is one split"),
    ({"minority": ["x"]}, "minority holds 'x'; allowed are labels out of 'a', 'b', 'c', 'd'"),
    ({"minority": list("abcd")}, "minority holds all 4 classes"),
    ({"n_bootstrap": 1.5}, "n_bootstrap = 1.5"),
    ({"estimator": SVC(), "response_method": "predict_proba"}, "estimator SVC has no predict_proba; one is needed"),
    ({"estimator": SVC(decision_function_shape="ovo")}, "decision_function of SVC has 6 columns for 4 classes"),
]


@pytest.mark.parametrize("wrong,message", BAD_PARAMETERS)
def test_wrong_parameters_are_refused(wrong, message):
    X, y = blobs()
    model = BalancedClassifierCV(**({"estimator": LogisticRegression()} | wrong))
    with pytest.raises(InputError, match=message) as error:
        model.fit(X, y)
    assert "\n" not in str(error.value)


def test_a_trained_classifier_is_checked_too():
    X, y = blobs()
    with pytest.raises(NotFittedError, match="cv = 'prefit': estimator LogisticRegression is not trained"):
        BalancedClassifierCV(LogisticRegression(), cv="prefit").fit(X, y)
    inner = LogisticRegression().fit(X, y)
    with pytest.raises(InputError, match="y: label 'z' has no column"):
        BalancedClassifierCV(inner, cv="prefit").fit(X, np.where(y == "d", "z", y))
    with pytest.raises(InputError, match=r"y has no image of a rare class \('c', 'd'\)"):
        BalancedClassifierCV(inner, cv="prefit").fit(X[:120], y[:120])
    with pytest.raises(InputError, match="method = 'prior': class 'c' has no image in y"):
        BalancedClassifierCV(inner, cv="prefit", method="prior").fit(X[:120], y[:120])
    with pytest.raises(NotFittedError):
        BalancedClassifierCV(inner, cv="prefit").predict(X)


# the display


def test_the_display_draws_two_panels():
    X, y = blobs()
    model = BalancedClassifierCV(LogisticRegression(), random_state=0).fit(X, y)
    display = BalanceDisplay.from_estimator(model)
    assert display.ax_.shape == (2,) and display.figure_ is display.ax_[1].figure
    assert display.ax_[1].get_xlabel() == "γ" and display.curve is model.curve_
    figure, axes = plt.subplots(2, 1)
    other = BalanceDisplay.from_estimator(model, X[::2], y[::2], ax=axes)
    assert other.figure_ is figure and len(other.curve) != len(model.curve_)
    assert BalanceDisplay.from_choice(model.choice_).gamma == model.gamma_
    with pytest.raises(InputError, match="ax: 1 Axes; allowed are 2"):
        display.plot(axes[0])
    with pytest.raises(InputError, match=r"has no curve of γ \(method = 'prior'\)"):
        BalanceDisplay.from_estimator(BalancedClassifierCV(LogisticRegression(), method="prior").fit(X, y))
    with pytest.raises(NotFittedError):
        BalanceDisplay.from_estimator(BalancedClassifierCV(LogisticRegression()))


# what is imported


def test_neither_torch_nor_matplotlib_is_imported():
    code = """
import sys
import numpy as np
from sklearn.linear_model import LogisticRegression
from fashion_vae.balance import BalancedClassifierCV, BalanceDisplay, choose_gamma
y = np.repeat([0, 1], [90, 40])
X = np.random.default_rng(0).normal(size=(130, 2)) + y[:, None]
BalancedClassifierCV(LogisticRegression(), minority=[1]).fit(X, y).predict(X)
print([name for name in ("torch", "matplotlib", "pydantic") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", done.stderr
