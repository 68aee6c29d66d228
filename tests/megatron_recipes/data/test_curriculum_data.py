import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_curricula import corpora, corpus, curriculum, data, stage, steps

from mecellem.errors import UserError
from megatron_recipes.data.masking import IGNORE_INDEX

WEB, LAWS, ENGLISH = [5, 0, 9, 3, 12, 7] * 4, [30, 2, 2, 41] * 3, [6] * 20
FOUND = corpora(web=WEB, laws=LAWS, english=ENGLISH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("curricula")


def three_stages(folder):
    """24 steps: new weights, new sources, then sequences twice as long and a batch of half the rows."""
    return curriculum(
        folder,
        stage("general", 512, 8, 64, web=0.7, english=0.3),
        stage("terms", 640, 8, 64, web=0.2, laws=0.5, english=0.3),
        stage("long", 384, 16, 64, laws=0.8, english=0.2, attention="across"),
    )


def tokens_of(steps_of_rows):
    return [token for step in steps_of_rows for ids, _, _ in step for token in ids]


@pytest.mark.parametrize(("ranks", "micro"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_every_layout_has_the_same_global_batches(folder, ranks, micro):
    plan = three_stages(folder)
    reference = steps(data(plan, FOUND), plan.steps, 1, 1)
    assert steps(data(plan, FOUND), plan.steps, ranks, micro) == reference


@settings(max_examples=40)
@given(stops=st.lists(st.tuples(st.integers(1, 10), st.sampled_from([(1, 1), (2, 2), (4, 1), (1, 4)])), max_size=6))
def test_stopped_anywhere_and_resumed_on_any_layout_equals_uninterrupted(tmp_path_factory, stops):
    plan = three_stages(tmp_path_factory.mktemp("c"))
    reference = steps(data(plan, FOUND), plan.steps)
    feed, found = data(plan, FOUND), []
    for count, layout in [*stops, (plan.steps, (1, 1))]:
        found += steps(feed, min(count, plan.steps - len(found)), *layout)
        assert feed.step == len(found)
        feed = data(plan, FOUND, cursor=json.loads(json.dumps(feed.cursor)))
    assert found == reference


def assert_streams_are_whole(rows_of_steps, found):
    """Each source's tokens, in the order in which they came, are its stream from the beginning: nothing lost, nothing twice
    before the epoch is over."""
    tokens = np.array(tokens_of(rows_of_steps))
    for number, source in enumerate(found.values()):
        total = int(source.document_starts[-1])
        mine = tokens[tokens // 1_000_000 == number] % 1_000_000
        for epoch in range(0, len(mine), total):
            part = mine[epoch : epoch + total]
            assert len(set(part.tolist())) == len(part)
            if len(part) == total:
                assert sorted(part.tolist()) == list(range(total))
        counts = Counter(mine.tolist())
        assert max(counts.values(), default=0) - min(counts.get(t, 0) for t in range(total)) <= 1


CHANGES = st.lists(
    st.tuples(
        st.integers(1, 6),  # steps before the change
        st.sampled_from([4, 8, 16, 32]),  # sequence length
        st.tuples(*[st.integers(0, 9)] * 3).filter(any),  # weights of web, laws, english; 0: left out
        st.sampled_from([(1, 1), (2, 1), (1, 2)]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60)
@given(changes=CHANGES)
def test_changes_in_mid_stage_neither_repeat_nor_lose_a_token(tmp_path_factory, changes):
    folder, cursor, found, done = tmp_path_factory.mktemp("c"), None, [], 0
    for count, seq_len, raw, layout in changes:
        weights = {name: part / sum(raw) for name, part in zip(("web", "laws", "english"), raw, strict=True) if part}
        plan = curriculum(folder, stage("only", 64 * 60, seq_len, 64, **weights))
        feed = data(plan, FOUND, cursor=cursor)
        assert feed.step == done
        found += steps(feed, count, *layout)
        done, cursor = done + count, json.loads(json.dumps(feed.cursor))
    assert_streams_are_whole(found, FOUND)


def test_stages_neither_repeat_nor_lose_a_token(folder):
    plan = three_stages(folder)
    assert_streams_are_whole(steps(data(plan, FOUND), plan.steps), FOUND)


def test_a_corpus_has_one_stream_under_any_path(folder, tmp_path):
    """The same tokens in another folder and stage go on where the first stage stopped."""
    moved = corpora(web=WEB)
    twin = corpus("web", WEB)
    moved[tmp_path / "web"] = type(twin)(tmp_path / "web", twin.tokens, twin.document_starts, twin.manifest)
    plan = curriculum(folder, stage("a", 64, web=1.0), stage("b", 64, **{str(tmp_path / "web"): 1.0}))
    assert len(set(tokens_of(steps(data(plan, moved), 2)))) == 128


def test_the_mixture_is_the_one_asked_for(folder):
    plan = curriculum(folder, stage("a", 64 * 200, 8, 64, web=0.55, laws=0.3, english=0.15))
    drawn = np.array(tokens_of(steps(data(plan, FOUND), plan.steps))).reshape(-1, 8)[:, 0] // 1_000_000
    for window in (100, 400, 1600):
        for number, weight in enumerate((0.55, 0.3, 0.15)):
            shares = np.convolve(drawn == number, np.ones(window) / window, "valid")
            assert np.abs(shares - weight).max() < 2.0 / window  # bounds here: 0.5, 0.85, 0.67 sequences, twice


def test_every_token_is_predicted_once(folder):
    """An epoch of each source, cut into rows of two lengths over two stages."""
    total = sum(WEB)  # 144
    plan = curriculum(folder, stage("a", 64, 8, 64, web=1.0), stage("b", 80, 16, 16, web=1.0))
    labels = [label for step in steps(data(plan, FOUND), plan.steps) for _, row, _ in step for label in row]
    firsts = {int(a) for a, b in itertools.pairwise(FOUND_STARTS) if b > a}
    kept = [label for label in labels if label != IGNORE_INDEX]
    assert len(labels) == total
    assert sorted(kept) == sorted(set(range(total)) - firsts)


FOUND_STARTS = next(iter(FOUND.values())).document_starts.tolist()


@settings(max_examples=60)
@given(seq_len=st.sampled_from([4, 8]), weight=st.integers(1, 9), tokens=st.integers(32, 1500))
def test_max_epochs_is_exact(tmp_path_factory, seq_len, weight, tokens):
    """The least `max_epochs` that is accepted is what the run reads, to the token."""
    folder = tmp_path_factory.mktemp("c")

    def plan(epochs):
        return curriculum(folder, stage("a", tokens, seq_len, 32, epochs=epochs, web=weight / 10, laws=1 - weight / 10))

    accepted = plan(1000)
    read = Counter(token // 1_000_000 for token in tokens_of(steps(data(accepted, FOUND), accepted.steps)))
    needed = {"web": read[0] / sum(WEB), "laws": read[1] / sum(LAWS)}
    most = max(needed.values())
    data(plan(most + 1e-9), FOUND)
    with pytest.raises(UserError, match="max_epochs allows"):
        data(plan(most - 0.9 / max(sum(WEB), sum(LAWS))), FOUND)


@settings(max_examples=40)
@given(stop=st.integers(1, 9), weight=st.integers(1, 9), tokens=st.integers(640, 1500))
def test_max_epochs_is_exact_from_a_checkpoint_on(tmp_path_factory, stop, weight, tokens):
    """What was read under the old weights counts as it was, what is left by the new ones."""
    folder = tmp_path_factory.mktemp("c")
    feed = data(curriculum(folder, stage("a", 640, 8, 64, web=0.5, laws=0.5)), FOUND)
    found = steps(feed, stop)

    def plan(epochs):
        weights = {"web": weight / 10, "laws": 1 - weight / 10}
        return curriculum(folder, stage("a", tokens, 16, 64, epochs=epochs, **weights))

    changed = data(plan(1000), FOUND, cursor=feed.cursor)
    found += steps(changed, changed.curriculum.steps - stop)
    read = Counter(token // 1_000_000 for token in tokens_of(found))
    most = max(read[0] / sum(WEB), read[1] / sum(LAWS))
    data(plan(most + 1e-9), FOUND, cursor=feed.cursor)
    with pytest.raises(UserError, match="max_epochs allows"):
        data(plan(most - 0.9 / max(sum(WEB), sum(LAWS))), FOUND, cursor=feed.cursor)


def test_changed_weights_hold_from_the_checkpoint_on(folder):
    feed = data(curriculum(folder, stage("a", 64 * 200, 8, 64, web=0.9, laws=0.1)), FOUND)
    steps(feed, 37)
    feed = data(curriculum(folder, stage("a", 64 * 200, 8, 64, web=0.2, laws=0.8)), FOUND, cursor=feed.cursor)
    drawn = np.array(tokens_of(steps(feed, 100))).reshape(-1, 8)[:, 0] // 1_000_000
    shares = np.convolve(drawn == 0, np.ones(400) / 400, "valid")
    assert np.abs(shares - 0.2).max() <= 1 / 400  # two sources: never off by more than half a sequence


def refusal(plan, found, cursor, seed=1):
    with pytest.raises(UserError) as caught:
        data(plan, found, seed, cursor)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def stopped(folder):
    """After 12 steps of three_stages: 8 of the first stage, 4 of the second."""
    feed = data(three_stages(folder), FOUND)
    steps(feed, 12)
    return json.loads(json.dumps(feed.cursor))


def test_too_few_tokens_is_refused_with_the_numbers(folder):
    plan = curriculum(folder, stage("a", 64 * 3, 8, 64, epochs=1, web=1.0))
    message = refusal(plan, FOUND, None)
    assert "line 9, stage 'a', source 'web'" in message
    assert "192 tokens are asked of web" in message and "1.333 epochs of its 144" in message and "max_epochs: 1.34" in message


def test_finished_stages_stay_as_they_are(folder, stopped):
    plan = curriculum(folder, stage("general", 512, 8, 64, web=0.6, english=0.4), stage("terms", 640, 8, 64, web=1.0))
    message = refusal(plan, FOUND, stopped)
    assert "line 2, stage 'general'" in message and "finished" in message


def test_stages_keep_their_order(folder, stopped):
    plan = curriculum(folder, stage("terms", 640, 8, 64, web=1.0), stage("general", 512, 8, 64, web=0.7, english=0.3))
    assert "must begin with general, terms" in refusal(plan, FOUND, stopped)


def test_another_batch_in_mid_stage_is_refused_and_the_advice_works(folder, stopped):
    first = stage("general", 512, 8, 64, web=0.7, english=0.3)
    plan = curriculum(folder, first, stage("terms", 640, 8, 128, web=1.0))
    message = refusal(plan, FOUND, stopped)
    assert "line 14, stage 'terms'" in message and "end it with tokens: 256 and go on in a new stage" in message
    plan = curriculum(folder, first, stage("terms", 256, 8, 64, web=1.0), stage("more", 256, 8, 128, web=1.0))
    feed = data(plan, FOUND, cursor=stopped)
    assert feed.step == 12 and len(steps(feed, 1)[0]) == 16


def test_before_the_first_step_all_may_be_changed(folder):
    cursor = data(curriculum(folder, stage("a", 640, 8, 64, web=1.0)), FOUND).cursor
    feed = data(curriculum(folder, stage("a", 640, 8, 128, laws=1.0)), FOUND, cursor=cursor)
    assert len(steps(feed, 1)[0]) == 16


def test_a_stage_cannot_end_before_now(folder, stopped):
    plan = curriculum(folder, stage("general", 512, 8, 64, web=0.7, english=0.3), stage("terms", 128, 8, 64, web=1.0))
    assert "it now ends after 2: set tokens to 256 or more" in refusal(plan, FOUND, stopped)


def test_another_seed_is_refused(folder, stopped):
    assert "set --seed 1" in refusal(three_stages(folder), FOUND, stopped, seed=2)


def test_an_overwritten_corpus_is_refused(folder):
    plan = curriculum(folder, stage("a", 640, web=0.5, laws=0.5))
    feed = data(plan, FOUND)
    steps(feed, 2)
    changed = {path: corpus(str(path), WEB, content="new") if path.name == "web" else found for path, found in FOUND.items()}
    assert "web holds other tokens than when" in refusal(plan, changed, feed.cursor)


def test_max_epochs_counts_what_the_checkpoint_has_read(folder, stopped):
    first = stage("general", 512, 8, 64, web=0.7, english=0.3)
    weights = {"web": 0.2, "laws": 0.5, "english": 0.3}
    plan = curriculum(folder, first, stage("terms", 640, 8, 64, epochs=1000, **weights), stage("end", 64, epochs=1, web=1.0))
    message = refusal(plan, FOUND, stopped)
    assert "stage 'end'" in message and "max_epochs allows 1" in message


@pytest.mark.parametrize("damage", [{"format": "mecellem.cursor/9"}, {"streams": 3}, {"more": 1}, {"stage": None}])
def test_a_broken_cursor_is_refused(folder, stopped, damage):
    assert "data cursor" in refusal(three_stages(folder), FOUND, stopped | damage)


def test_lines_in_another_order_change_nothing(folder):
    one = curriculum(folder, stage("a", 640, web=0.4, laws=0.2, english=0.4))
    reference = steps(data(one, FOUND), one.steps)
    other = curriculum(folder, stage("a", 640, english=0.4, web=0.4, laws=0.2))
    assert steps(data(other, FOUND), other.steps) == reference


def test_a_source_that_left_comes_back_where_it_was(folder):
    first = curriculum(folder, stage("a", 64 * 60, web=0.5, laws=0.5))
    feed = data(first, FOUND)
    found = steps(feed, 3)
    feed = data(curriculum(folder, stage("a", 64 * 60, laws=1.0)), FOUND, cursor=feed.cursor)
    found += steps(feed, 2)
    feed = data(first, FOUND, cursor=feed.cursor)
    found += steps(feed, 3)
    assert_streams_are_whole(found, FOUND)
