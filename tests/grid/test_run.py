"""Run ids: they depend on the values that determine a result, and on no others."""

import hashlib
import json
import pickle
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.grid.run import Cell, Run, Teacher, Term
from kdbench.grid.settings import Dataset, Training

few = settings(max_examples=30, deadline=None)
names = st.sampled_from(["at", "sp", "vid", "crd"])
numbers = st.floats(0, 1e6, allow_nan=False).map(lambda x: x + 0.0)
hypers = st.dictionaries(
    st.sampled_from(["p", "seed", "training", "dataset"]),
    st.none()
    | st.integers(0, 9)
    | numbers
    | st.sampled_from(['"seed":null', '"training":null'])
    | st.just((1, 2)),
    max_size=3,
)
terms = st.lists(
    st.builds(Term, names, numbers, hypers, version=st.integers(1, 3)),
    max_size=3,
    unique_by=lambda term: term.method,
).map(tuple)
runs = st.builds(
    Run,
    student=st.sampled_from(["r8w3", "v5w4"]),
    teacher=st.none() | st.builds(Teacher, st.just("r8w16"), st.sampled_from(["a" * 16, "b" * 16])),
    dataset=st.builds(Dataset, name=st.just("digits"), per_class=st.none() | st.integers(1, 9)),
    training=st.builds(Training, epochs=st.integers(1, 9), lr=st.floats(0.01, 1)),
    gamma=numbers,
    alpha=numbers,
    temperature=st.floats(1, 9),
    terms=terms,
    seed=st.integers(0, 10**9),
    pretrain=st.none() | st.tuples(st.integers(1, 9), st.floats(0.01, 1)),
)


@few
@given(runs)
def test_id_is_sixteen_digits_of_hash_of_canonical_text(run: Run) -> None:
    text = json.dumps(run.canonical, sort_keys=True, separators=(",", ":"))
    assert run.id == hashlib.sha256(text.encode()).hexdigest()[:16]


@few
@given(runs, st.integers(0, 10**6))
def test_with_seed_equals_replace(run: Run, seed: int) -> None:
    assert run.id and run.shared  # cached values of one seed must not be copied to another
    fast, slow = run.with_seed(seed), replace(run, seed=seed)
    assert fast == slow
    assert (fast.id, fast.shared) == (slow.id, slow.shared)
    assert (fast.id == run.id) == (seed == run.seed)


@few
@given(runs)
def test_run_is_restored_from_json(run: Run) -> None:
    again = Run.from_json(json.loads(json.dumps(run.to_json())))
    assert again == run
    assert again.id == run.id
    assert pickle.loads(pickle.dumps(run)) == run


@few
@given(runs, st.randoms())
def test_order_of_terms_and_names_of_rows_change_no_id(run: Run, random: Any) -> None:
    mixed = list(run.terms)
    random.shuffle(mixed)
    mixed = [replace(t, hyper=dict(reversed(t.hyper.items())), path="/elsewhere.py") for t in mixed]
    other = replace(run, terms=tuple(mixed), method="another", protocol="p")
    assert other.id == run.id


@few
@given(runs, runs)
def test_ids_are_equal_if_canonical_forms_are_equal(a: Run, b: Run) -> None:
    assert (a.id == b.id) == (a.canonical == b.canonical)


@few
@given(runs)
def test_cohort_shares_all_but_the_objective(run: Run) -> None:
    assert replace(run, gamma=run.gamma + 1, terms=(), pretrain=None).shared == run.shared
    assert replace(run, seed=run.seed + 1).shared != run.shared
    batch = run.training.model_copy(update={"batch_size": 7})
    assert replace(run, training=batch).shared != run.shared


def test_version_of_a_method_is_part_of_the_id_above_one() -> None:
    """Adding the field moved no id; raising it moves those of the method's runs alone."""
    run = Run(
        "r8w3", Teacher("r8w4", "a"), Dataset(name="digits"), Training(), 1.0, 0.0, 4.0,
        (Term("crd", 1.0), Term("kd", 1.0)), 0,
    )  # fmt: skip
    assert run.canonical["terms"][0] == {"method": "crd", "beta": 1.0, "hyper": {}}
    newer = replace(run, terms=(replace(run.terms[0], version=2), run.terms[1]))
    assert newer.id != run.id
    assert newer.canonical["terms"][0]["version"] == 2
    assert newer.canonical["terms"][1] == run.canonical["terms"][1]


def test_temperature_has_no_effect_with_a_weight_of_zero() -> None:
    run = Run(
        "r8w3", Teacher("r8w4", "a"), Dataset(name="digits"), Training(), 1.0, 0.0, 4.0, (), 0
    )
    assert replace(run, temperature=2.0).id == run.id
    assert replace(run, alpha=1.0, temperature=2.0).id != replace(run, alpha=1.0).id
    assert run.title == "r8w4 -> r8w3, seed 0"
    assert replace(run, teacher=None).title == "r8w3, seed 0"
    assert Cell("kd", "r8w4", "r8w3", (run,)).pair == "r8w4 -> r8w3"
