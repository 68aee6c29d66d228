import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_curricula import corpora, curriculum, stage

from mecellem.errors import UserError
from megatron_recipes.config import RopeScaling
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_stage import LearningRate, short
from megatron_recipes.data.supply import Mixture

GOOD = """\
stages:
  - name: general
    tokens: 3.7B
    seq_len: 4096
    global_batch_tokens: 4_194_304
    lr: {peak: 1.0e-4, final: 1e-5, warmup_tokens: 200M, decay: cosine}
    sources:
      - {name: web, path: data/web, weight: 0.8}
      - path: data/english
        weight: 0.2
        max_epochs: 2
        replay: true
  - name: long
    tokens: 16_777_216
    seq_len: 32_768
    global_batch_tokens: 4194304
    lr: 1e-5
    attention: across
    rope_theta: 5_000_000.0
    rope_scaling: {rope_type: yarn, factor: 4, original_max_position_embeddings: 32_768}
    sources:
      - {path: data/web, weight: 1}
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "plan.yaml"
        path.write_text(text, encoding="utf-8")
        return Curriculum.read(path)

    return read


def test_reads_all_of_it(read):
    plan = read(GOOD)
    general, long = plan.stages
    assert (general.tokens, general.seq_len, general.global_batch_tokens) == (3_700_000_000, 4096, 4_194_304)
    assert general.lr == LearningRate(peak=1e-4, final=1e-5, warmup_tokens=200_000_000, decay="cosine")
    assert [(s.name, s.path, s.weight, s.max_epochs, s.replay) for s in general.sources] == [
        ("web", Path("data/web"), 0.8, 1.0, False),
        ("english", Path("data/english"), 0.2, 2.0, True),
    ]
    assert (general.attention, general.rope_theta, general.rope_scaling) == ("document", None, None)
    assert (long.lr, long.attention, long.rope_theta) == (LearningRate(peak=1e-5), "across", 5e6)
    assert long.rope_scaling == RopeScaling(rope_type="yarn", factor=4, original_max_position_embeddings=32_768)
    assert general.steps == math.ceil(3.7e9 / 4_194_304) == 883 and general.sequences_per_step == 1024
    assert (long.steps, long.sequences, long.trained_tokens) == (4, 512, 16_777_216)


def test_steps_places_and_tokens(read):
    plan = read(GOOD)
    assert plan.steps == 887
    assert [plan.place(step) for step in (0, 882, 883, 886)] == [(0, 0), (0, 882), (1, 0), (1, 3)]
    assert plan.stage_at(883).name == "long"
    assert plan.tokens_after(0) == 0 and plan.tokens_after(883) == 883 * 4_194_304
    assert plan.tokens_after(887) == plan.tokens == 887 * 4_194_304


def test_the_rate_is_of_the_stages_tokens_with_the_steps_own(read):
    plan = read(GOOD)
    assert plan.learning_rate(0) == pytest.approx(1e-4 * 4_194_304 / 200e6)
    assert plan.learning_rate(882) == pytest.approx(1e-5)
    assert plan.learning_rate(883) == plan.learning_rate(886) == 1e-5
    middle = (200_000_000 + plan.stages[0].trained_tokens) / 2
    assert plan.stages[0].lr.at(round(middle), plan.stages[0].trained_tokens) == pytest.approx(5.5e-5)


@pytest.mark.parametrize(
    ("decay", "values"),
    [
        ("linear", [1.0, 1.0, 0.775, 0.55, 0.1]),
        ("cosine", [1.0, 1.0, 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2, 0.55, 0.1]),
        ("wsd", [1.0, 1.0, 0.55, 0.1 + 0.9 * (1 - math.sqrt(0.5)), 0.1]),
    ],
)
def test_decay_shapes(decay, values):
    rate = LearningRate(peak=1.0, final=0.1, initial=0.5, warmup_tokens=100, decay=decay, decay_tokens=400)
    assert rate.at(50, 1000) == 0.75
    assert [rate.at(tokens, 1000) for tokens in (100, 600, 700, 800, 1000)] == pytest.approx(values)


@settings(max_examples=100)
@given(
    decay=st.sampled_from(["constant", "linear", "cosine", "wsd"]),
    warmup=st.integers(0, 500),
    length=st.integers(1, 499),
    tokens=st.integers(0, 1000),
)
def test_rates_stay_between_their_ends(decay, warmup, length, tokens):
    ends = {} if decay == "constant" else {"final": 0.25, "decay_tokens": length}
    start = {"initial": 0.125, "warmup_tokens": warmup} if warmup else {}
    rate = LearningRate(peak=1.0, decay=decay, **start, **ends)
    assert 0.125 <= rate.at(tokens, 1000) <= 1.0
    assert rate.at(1000, 1000) == (1.0 if decay == "constant" else 0.25)


BAD = [
    ("tokens: 3.7B", "tokens: 3.7G", 3, "'3.7G' is not a number of tokens"),
    ("tokens: 3.7B", "tokens: -5", 3, "is -5: it must be greater than 0"),
    ("tokens: 3.7B", "tokens: 4_", 3, "'4_' is not a number of tokens"),
    ("tokens: 3.7B", "tokens: 4__0", 3, "'4__0' is not a number of tokens"),
    ("tokens: 3.7B", "tokens: 4_.5K", 3, "'4_.5K' is not a number of tokens"),
    ("tokens: 3.7B", "tokens: 1:30", 3, "'1:30' is not a number of tokens"),
    ("tokens: 3.7B", "tokens: 0x10", 3, "'0x10' is not a number of tokens"),
    ("tokens: 3.7B", "tokens: true", 3, "'True' is not a number of tokens"),
    ("tokens: 3.7B", "tokens: " + 50 * "9" + "B", 3, "is not a number of tokens"),
    ("tokens: 3.7B", "tokens: 1001T", 3, "a number of tokens is at most 1000T"),
    ("tokens: 3.7B", "tokens: 1e300", 3, "a number of tokens is at most 1000T"),
    ("tokens: 3.7B", "tokens: -.inf", 3, "a number of tokens is at most 1000T"),
    ("tokens: 3.7B", "tokens: .nan", 3, "a number of tokens is at most 1000T"),
    (
        "tokens: 3.7B",
        "tokens: 900T",
        3,
        "`stages[0] (general).tokens`: they are 219,726,563,328 sequences, more than the 2,147,483,648",
    ),
    ("global_batch_tokens: 4_194_304", "global_batch_tokens: 2000T", 5, "at most 1000T"),
    ("tokens: 3.7B", "tokens: 0", 3, "greater than 0"),
    ("tokens: 3.7B", "tokens: 1.5", 3, "not a whole number of tokens"),
    ("tokens: 3.7B", "tokenz: 3.7B", 3, "did you mean `tokens`?"),
    ("    tokens: 3.7B\n", "", 2, "`stages[0] (general).tokens` is missing"),
    ("seq_len: 4096", "seq_len: 4K", 4, "write it out"),
    ("seq_len: 4096", "seq_len: 4096_", 4, "'4096_' is not a length"),
    ("seq_len: 4096", "seq_len: 010", 4, "'010' is not a length"),
    ("seq_len: 4096", "seq_len: 3000", 4, "3,000 does not divide global_batch_tokens 4,194,304: set that to 4,194,000"),
    ("weight: 0.8", "weight: 0", 8, "sources[0] (web).weight` is 0: it must be greater than 0"),
    ("weight: 0.2", "weight: -1", 10, "greater than 0"),
    ("weight: 0.8", "weight: .nan", 8, "finite"),
    ("weight: 0.8", "weight: true", 8, "sources[0] (web).weight` is True: it must be a number"),
    ("weight: 0.8", "weight: 0.8_", 8, "is '0.8_': it must be a number"),
    ("weight: 0.8", "weight: '0.8'", 8, "is '0.8': it must be a number"),
    ("max_epochs: 2", "max_epochs: true", 11, "is True: it must be a number"),
    ("peak: 1.0e-4", "peak: true", 6, "lr.peak` is True: it must be a number"),
    ("warmup_tokens: 200M", "warmup_tokens: false", 6, "'False' is not a number of tokens"),
    ("warmup_tokens: 200M", "warmup_tokens: 200M, initial: 1", 6, "lr.initial`: 1 is above peak 0.0001: lower it"),
    ("lr: 1e-5", "lr: {peak: 1e-5, initial: 1e-6}", 17, "lr.initial`: only a warm-up begins with it: set warmup_tokens"),
    ("lr: 1e-5", "lr: {peak: 1e-5, initial: 0.0, warmup_tokens: 0}", 17, "only a warm-up begins with it"),
    ("warmup_tokens: 200M", "warmup_tokens: 4_194_304", 6, "ends within the first step of 4,194,304 tokens"),
    ("warmup_tokens: 200M", "warmup_tokens: 1", 6, "warmup_tokens 1 ends within the first step"),
    ("weight: 0.8", "weight: 0.7", 7, "the weights sum to 0.9 instead of 1: in the same proportions they are web 0.7778"),
    ("weight: 0.8", "wieght: 0.8", 8, "did you mean `weight`?"),
    ("path: data/english", "path: data/web", 7, "the path 'data/web': join them"),
    ("path: data/english", "path: other/web", 7, "the name 'web': rename one"),
    ("name: long", "name: general", 1, "two stages are called 'general'"),
    ("decay: cosine", "decay: cosinus", 6, "must be 'constant', 'linear', 'cosine' or 'wsd'"),
    ("final: 1e-5, ", "", 6, "cosine needs the rate that the stage ends with"),
    ("decay: cosine", "decay: wsd", 6, "wsd needs the length of its decay"),
    ("decay: cosine", "decay: constant", 6, "a constant rate has none"),
    ("final: 1e-5", "final: 1", 6, "above peak"),
    ("200M", "4B", 6, "take 4,000,000,000 of the stage's 3,703,570,432 tokens"),
    ("lr: 1e-5", "lr: fast", 17, "must be a number"),
    ("lr: 1e-5", "lr: [1]", 17, "must be a mapping"),
    ("lr: 1e-5", "lr: true", 17, "must be a mapping"),
    ("attention: across", "attention: both", 18, "'document' or 'across'"),
    ("rope_theta: 5_000_000.0", "rope_theta: 1", 19, "rope_theta` is 1: it must be greater than 1"),
    ("rope_theta: 5_000_000.0", "rope_theta: true", 19, "rope_theta` is True: it must be a number"),
    ("factor: 4", "factor: 0.5", 20, "`stages[1] (long).rope_scaling.factor`: is 0.5: it must be above 1"),
    ("factor: 4", "factor: 1", 20, "is 1: it must be above 1"),
    ("factor: 4", "factor: a", 20, "rope_scaling.factor`: is 'a': it must be a finite number"),
    ("factor: 4", "factor: true", 20, "is True: it must be a finite number"),
    ("factor: 4", "factor: .inf", 20, "is inf: it must be a finite number"),
    ("factor: 4, ", "", 20, "is 1: it must be above 1"),
    (
        "yarn, factor: 4, original_max_position_embeddings: 32_768",
        "llama3, factor: 8",
        20,
        "original_max_position_embeddings`: is missing",
    ),
    ("embeddings: 32_768", "embeddings: 32768.0", 20, "is 32768.0: it must be a whole number"),
    ("rope_type: yarn", "rope_type: Yarn", 20, "rope_scaling.rope_type`: is 'Yarn': set yarn, llama3 or none"),
    ("rope_type: yarn", "rope_type: [1]", 20, "is [1]: set yarn, llama3 or none"),
    ("rope_type: yarn", "rope_type: dynamic", 20, "is 'dynamic': set yarn, llama3 or none"),
    (
        "factor: 4",
        "factor: 4, low_freq_factor: 2",
        20,
        "rope_scaling.low_freq_factor`: is a setting of llama3 and does nothing",
    ),
    ("factor: 4", "factor: 4, high_freq_factor: 4.0", 20, "high_freq_factor`: is a setting of llama3 and does nothing"),
    ("rope_type: yarn", "rope_type: llama3, beta_fast: 32.0", 20, "beta_fast`: is a setting of yarn and does nothing"),
    (
        "rope_type: yarn, factor: 4, original_max_position_embeddings: 32_768",
        "rope_type: none, factor: 1.0",
        20,
        "none uses no other setting",
    ),
    ("rope_type: yarn", "rope_type: none", 20, "none uses no other setting"),
    (
        "rope_scaling: {rope_type: yarn, factor: 4, original_max_position_embeddings: 32_768}",
        "rope_scaling: yarn",
        20,
        "must be a mapping with rope_type",
    ),
    ("rope_type: yarn", "type: yarn", 20, "unknown key 'type'"),
    ("max_epochs: 2", "max_epochs: 0", 11, "greater than 0"),
    ("replay: true", "replay: maybe", 12, "must be true or false"),
    ("replay: true", "replay: 1", 12, "must be true or false"),
    ("replay: true", "weight: 0.3", 12, "the key `weight` stands in line 10 already"),
    ("  - name: general", "  - name: [general", 3, "not YAML"),
    ("stages:", "stage:", 1, "did you mean `stages`?"),
    (GOOD, "stages: []\n", 1, "must not be empty"),
    (GOOD, "- 1\n", 1, "mapping"),
    (GOOD, "stages:\n  - 3\n", 2, "mapping"),
    (GOOD, "stages: !!python/object:os.system x\n", 1, "not YAML"),
]


@pytest.mark.parametrize(("old", "new", "line", "sentence"), BAD, ids=[new.strip()[:30] for _, new, _, _ in BAD])
def test_bad_files_are_refused_in_a_sentence_with_file_and_line(read, old, new, line, sentence):
    assert GOOD.count(old) >= 1
    with pytest.raises(UserError) as caught:
        read(GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert f"plan.yaml, line {line}: " in message and sentence in message and "\n" not in message


def test_missing_and_empty_files(tmp_path, read):
    with pytest.raises(UserError, match=r"nowhere\.yaml is missing"):
        Curriculum.read(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match="is a folder"):
        Curriculum.read(tmp_path)
    with pytest.raises(UserError, match="is empty"):
        read("# nothing\n")


def test_weights_within_a_thousandth_are_scaled_to_one(tmp_path):
    plan = curriculum(tmp_path, stage("a", web=0.333, laws=0.333, english=0.333))
    assert plan.stages[0].weights == pytest.approx((1 / 3,) * 3) and sum(plan.stages[0].weights) == pytest.approx(1, abs=1e-15)


def test_layouts_that_cannot_deal_the_batch(read):
    plan = read(GOOD)
    plan.check_layout(data_parallel_size=4, micro_batch_tokens=32_768)
    for ranks, size, start, end in (
        (
            4,
            8192,
            "line 15, stage 'long': seq_len 32,768 exceeds --micro-batch-tokens 8,192",
            ": set --micro-batch-tokens 32768",
        ),
        (
            *(4, 100_000, "line 5, stage 'general': a step's 1,024 sequences do not divide by 24 a micro batch"),
            "x 4 data-parallel ranks: set --micro-batch-tokens 65536 or 131072",
        ),
        (
            *(3, 32_768, "line 5, stage 'general': a step's 1,024 sequences do not divide by 8 a micro batch"),
            ": no size suits so many ranks; set global_batch_tokens of stage 'general' to 4,190,208 or 4,202,496, or train on "
            "another number of ranks",
        ),
    ):
        with pytest.raises(UserError) as caught:
            plan.check_layout(ranks, size)
        assert start in str(caught.value) and str(caught.value).endswith(end)


@given(
    shapes=st.lists(st.tuples(st.integers(2, 12), st.integers(1, 24)), min_size=1, max_size=3),
    ranks=st.integers(1, 4),
    asked=st.integers(1, 200),
)
def test_the_sizes_that_are_proposed_are_the_nearest_that_fit(tmp_path_factory, shapes, ranks, asked):
    stages = [stage(f"s{n}", seq_len=length, batch=length * rows, web=1) for n, (length, rows) in enumerate(shapes)]
    plan = curriculum(tmp_path_factory.mktemp("layout"), *stages)

    def fits(size):
        try:
            plan.check_layout(ranks, size)
        except UserError as error:
            return str(error)
        return None

    refused = fits(asked)
    good = [size for size in range(1, 12 * 24 + 1) if fits(size) is None]
    if refused is None:
        assert asked in good or asked > 12 * 24
    elif good:
        proposed = [int(word) for word in refused.rpartition("--micro-batch-tokens ")[2].split(" or ")]
        assert set(proposed) <= set(good)
        assert [size for size in proposed if size > asked] == [size for size in good if size > asked][:1]
        assert any(size < asked for size in proposed) == any(size < asked for size in good)
    else:
        assert "no size suits" in refused


@pytest.mark.parametrize(
    ("text", "value"),
    [("4_096", 4096), ("010", 10), ("4.5K", 4500), ("57_000M", 57 * 10**9), ("4e3", 4000), ("1000T", 10**15), ("'8'", 8)],
)
def test_numbers_of_tokens(tmp_path, text, value):
    assert curriculum(tmp_path, stage(tokens=text, seq_len=10**6, batch=10**7, web=1)).stages[0].tokens == value


def test_most_sequences_of_a_stage(tmp_path):
    """The blend counts as many as a stage may have."""
    stages = [stage(tokens=2**32, seq_len=2, batch=2**20, web=0.5, laws=0.5)]
    counts = Mixture(
        curriculum(tmp_path, *stages).stages[0], {path: of.manifest for path, of in corpora(web=[1], laws=[2]).items()}
    ).blend.counts(2**31)
    assert counts.tolist() == [2**30, 2**30]
    with pytest.raises(UserError, match=r"curriculum\.yaml, line 3: .*2,148,007,936 sequences, more than the 2,147,483,648"):
        curriculum(tmp_path, stage(tokens=2**32 + 1, seq_len=2, batch=2**20, web=1))


YARN = "{rope_type: yarn, factor: 4, original_max_position_embeddings: 16}"


def lengths(folder, *stages):
    """A curriculum with a stage for each (seq_len, rope_scaling or "")."""
    text = [
        stage("abc"[number], seq_len=length, batch=128, web=1).replace(
            "    attention:", f"    rope_scaling: {scaling}\n    attention:" if scaling else "    attention:"
        )
        for number, (length, scaling) in enumerate(stages)
    ]
    return curriculum(folder, *text)


def test_positions_that_the_stages_need(tmp_path):
    plan = lengths(tmp_path, (16, ""), (64, YARN), (32, ""))
    assert [plan.positions(stage, 16) for stage in range(3)] == [16, 64, 64]
    assert [plan.positions(stage, 32) for stage in range(3)] == [32, 64, 64]
    plan.check_positions(16, RopeScaling())
    with pytest.raises(UserError) as caught:
        plan.check_positions(8, RopeScaling())
    assert "curriculum.yaml, line 4, stage 'a': seq_len 16 exceeds the 8 of --model.max-sequence-length: " in str(caught.value)


@pytest.mark.parametrize(
    "reset", ["{rope_type: none}", YARN.replace("4", "2"), YARN.replace("yarn, factor: 4", "llama3, factor: 3.9")]
)
def test_a_scaling_holds_until_the_next(tmp_path, reset):
    lengths(tmp_path, (16, YARN), (64, ""), (16, reset)).check_positions(16, RopeScaling())
    with pytest.raises(UserError, match=r"line 21, stage 'c': seq_len 64 exceeds the 16 of --model"):
        lengths(tmp_path, (16, YARN), (64, ""), (64, reset)).check_positions(16, RopeScaling())
    with pytest.raises(UserError, match=r"stage 'b': seq_len 128 exceeds the 16 of .* and the 16 x 4 that yarn reaches"):
        lengths(tmp_path, (16, YARN), (128, "")).check_positions(16, RopeScaling())


def test_the_models_own_scaling(tmp_path):
    own = RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=8)
    lengths(tmp_path, (64, "")).check_positions(16, own)
    with pytest.raises(UserError, match="seq_len 64 exceeds the 16"):
        lengths(tmp_path, (64, "{rope_type: none}")).check_positions(16, own)
    lengths(tmp_path, (128, "")).check_positions(128, own)  # what the model declares is never refused


def test_short_numbers():
    assert [short(n) for n in (0, 640, 4096, 3_700_000_000, 16_549_000_000_000)] == ["0", "640", "4.1K", "3.7B", "16.55T"]


def test_the_data_layer_imports_no_torch():
    code = "import sys, megatron_recipes.data.curriculum_data; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


CURRICULA = Path(__file__).resolve().parents[3] / "megatron_recipes" / "curricula"


def test_the_papers_curricula():
    small, large = (Curriculum.read(CURRICULA / f"mecellem_{size}.yaml") for size in ("1p7b", "4b"))
    assert [stage.tokens for stage in small.stages] == [3_700_000_000, 57_000_000_000, 165_000_000_000, 24_900_000_000]
    assert [stage.tokens for stage in large.stages] == [270_791_712_595]
    for plan in (small, large):
        assert all(sum(source.weight for source in stage.sources) == pytest.approx(1) for stage in plan.stages)
        assert all(any(source.replay for source in stage.sources) for stage in plan.stages)
        assert all(stage.seq_len <= 32_768 and stage.rope_scaling is None for stage in plan.stages)
        starts = [stage.lr.at(stage.global_batch_tokens, stage.trained_tokens) for stage in plan.stages[1:]]
        ends = [stage.lr.at(stage.trained_tokens, stage.trained_tokens) for stage in plan.stages[:-1]]
        assert starts == pytest.approx(ends, rel=1e-3)  # no jump between stages
