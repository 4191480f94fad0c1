"""Sides are permanent, balanced towards the targets, and validation receives enough images."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.catalogue.splits import (
    SIDES,
    Expected,
    NewGroup,
    anomaly_shares,
    assign,
    assign_by_class,
    good_shares,
)
from pipelines.config.project import SubsetTargets

TARGETS = SubsetTargets()


def spread(groups, good=None, anomalies=None, expected=None, targets=TARGETS):
    return assign("line", groups, targets=targets, good=good or {}, anomalies=anomalies or {}, expected=expected)


def in_batches(keys: list[str], batch: int, **options) -> Counter:
    """Assign single images in batches of `batch`, as ingest does."""
    counts: Counter = Counter()
    for start in range(0, len(keys), batch):
        new = [NewGroup(key) for key in keys[start : start + batch]]
        counts.update(side for side, _ in spread(new, good=dict(counts), **options).values())
    return counts


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_assign_when_sixty_good_images_come_then_each_side_is_usable(batch: int):
    counts = in_batches([f"image-{number}" for number in range(60)], batch)
    assert counts["training"] >= 33
    assert counts["validation"] >= 10
    assert counts["test"] >= 10


@settings(max_examples=60)
@given(
    total=st.integers(16, 700),
    batch=st.integers(1, 150),
    salt=st.text(max_size=5),
    shares=st.tuples(st.integers(2, 8), st.integers(1, 4), st.integers(1, 4)),
)
def test_assign_when_any_number_of_images_comes_then_meets_the_targets(total, batch, salt, shares):
    targets = SubsetTargets(**{side: share / sum(shares) for side, share in zip(SIDES, shares, strict=True)})
    keys = [f"{salt}{number}" for number in range(total)]
    counts = in_batches(keys, batch, expected=Expected(unsplit=total), targets=targets)
    for side, share in good_shares(targets, total).items():
        assert abs(counts[side] - share * total) < 4
    if total >= 312:
        assert counts["validation"] >= 99


@settings(max_examples=60)
@given(total=st.integers(2, 900), batch=st.integers(1, 100))
def test_assign_when_train_is_imported_then_validation_gets_its_share_and_never_more_than_half(total, batch):
    counts: Counter = Counter()
    for start in range(0, total, batch):
        new = [NewGroup(f"{number}", split="train") for number in range(start, min(total, start + batch))]
        given_sides = spread(new, good=dict(counts), expected=Expected(train=total))
        assert {origin for _, origin in given_sides.values()} == {"imported"}
        counts.update(side for side, _ in given_sides.values())
    assert counts["test"] == 0
    assert counts["validation"] <= total / 2 + 2
    assert counts["validation"] >= total / 4 - 3
    if total >= 208:
        assert counts["validation"] >= 99


def test_good_shares_when_too_few_for_a_promise_then_training_keeps_its_share():
    assert good_shares(TARGETS, 31, train_only=True)["validation"] == pytest.approx(0.25)
    assert good_shares(TARGETS, 60)["validation"] == pytest.approx(0.2)
    assert good_shares(TARGETS, 400)["validation"] * 400 >= 99


def test_assign_when_split_or_side_is_given_then_keeps_it():
    groups = [NewGroup("a", split="test"), NewGroup("b", split="validation"), NewGroup("c", asked="training")]
    groups += [NewGroup("d", asked="training", split="test"), NewGroup("e", split="test", anomalous=True)]
    assert spread(groups) == {
        "a": ("test", "imported"),
        "b": ("validation", "imported"),
        "c": ("training", "asked"),
        "d": ("test", "imported"),
        "e": ("test", "imported"),
    }


def test_assign_when_anomalies_are_few_then_none_trains_and_from_thirty_on_some_do():
    first = spread([NewGroup(f"a{number}", anomalous=True) for number in range(30)])
    counts = Counter(side for side, _ in first.values())
    assert counts["training"] == 0
    assert counts["validation"] >= 10
    assert counts["test"] >= 19
    later = spread([NewGroup(f"b{number}", anomalous=True) for number in range(100)], anomalies=dict(counts))
    assert Counter(side for side, _ in later.values())["training"] >= 30
    assert sum(anomaly_shares(29).values()) == pytest.approx(1)
    assert sum(anomaly_shares(30).values()) == pytest.approx(1)


def test_assign_when_anomalies_come_then_good_images_stay_balanced():
    groups = [NewGroup(f"g{number}") for number in range(50)]
    groups += [NewGroup(f"a{number}", anomalous=True) for number in range(50)]
    sides = spread(groups)
    good = Counter(side for key, (side, _) in sides.items() if key.startswith("g"))
    assert good["training"] == pytest.approx(30, abs=2)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.randoms())
def test_assign_when_groups_differ_in_size_then_order_does_not_matter_and_sizes_balance(sizes, random):
    groups = [NewGroup(f"lot-{number}", size) for number, size in enumerate(sizes)]
    sides = spread(groups)
    shuffled = groups[:]
    random.shuffle(shuffled)
    assert spread(shuffled) == sides
    counts: Counter = Counter()
    for group in groups:
        counts[sides[group.key][0]] += group.size
    for side, share in good_shares(TARGETS, sum(sizes)).items():
        assert abs(counts[side] - share * sum(sizes)) <= max(sizes) + 4


def test_assign_when_images_come_one_by_one_then_sides_follow_no_period():
    counts: Counter = Counter()
    sides = []
    for number in range(500):
        ((side, _),) = spread([NewGroup(f"part-{number}")], good=dict(counts)).values()
        counts[side] += 1
        sides.append(side)
    for period in range(2, 11):
        for phase in range(period):
            share = sides[phase::period].count("training") / len(sides[phase::period])
            assert 0.35 < share < 0.85


CLASS_TARGETS = SubsetTargets(training=0.68, validation=0.12, test=0.2)


def by_class(groups, counts=None):
    return assign_by_class("line", groups, targets=CLASS_TARGETS, counts=counts or {})


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(8, 200), min_size=1, max_size=6),
    batch=st.integers(1, 150),
    salt=st.text(max_size=5),
    split=st.sampled_from([None, "train"]),
)
def test_assign_by_class_when_classes_differ_in_size_meets_the_targets_of_each(sizes, batch, salt, split):
    new = [NewGroup(f"{salt}{n}-{m}", label=str(n), split=split) for n, size in enumerate(sizes) for m in range(size)]
    counts: dict = {}
    for start in range(0, len(new), batch):
        chunk = new[start : start + batch]
        sides = by_class(chunk, counts)
        for group in chunk:
            counts.setdefault(group.label, Counter())[sides[group.key][0]] += 1
    for label, size in enumerate(sizes):
        of_class = counts[str(label)]
        assert of_class["training"] >= 4
        assert of_class["validation"] >= 1
        assert (of_class["test"] == 0) if split else (of_class["test"] >= 1)
        trained = 0.15 if split else 0.12
        assert abs(of_class["validation"] - trained * size) <= 4


def test_assign_by_class_when_split_or_side_is_given_keeps_it_and_order_does_not_matter():
    groups = [NewGroup("a", split="test", label="x"), NewGroup("b", asked="validation", label="x")]
    groups += [NewGroup(f"{n}", size=1 + n % 3, label="xy"[n % 2]) for n in range(40)]
    sides = by_class(groups)
    assert (sides["a"], sides["b"]) == (("test", "imported"), ("validation", "asked"))
    assert by_class(reversed(groups)) == sides
