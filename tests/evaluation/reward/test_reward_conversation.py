"""What the judge reads: the turn's end that its gate looks at, and continuations that are too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_judges import write_bert, write_tokenizer
from transformers import AutoTokenizer

from evaluation.reward.conversation import encode
from mecellem.errors import UserError

GEMMA = "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
BARE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_the_gate_reads_the_end_of_the_users_turn(tokenizer):
    found = encode(tokenizer, "Soru?", "Yanıt.", 100)
    tokens = tokenizer.convert_ids_to_tokens(list(found.ids))
    assert tokens[found.gate] == "<|eot|>" and tokens[found.gate + 1] == "<|start|>"
    assert tokens.count("<|eot|>") == 2 and tokens.index("<|eot|>") == found.gate and not found.cut


@pytest.mark.parametrize(("template", "expected"), [(GEMMA, "<|end|>"), (BARE, "Ċ")])
def test_other_templates(tokenizer, template, expected):
    """A special token that ends the turn before a newline, and a template without special tokens."""
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|begin|>")
    tokenizer.chat_template = template
    found = encode(tokenizer, "Soru?", "Yanıt.", 100)
    tokens = tokenizer.convert_ids_to_tokens(list(found.ids))
    assert tokens[found.gate] == expected
    assert "Yanıt" not in tokenizer.decode(list(found.ids[: found.gate + 1]))
    assert "Soru" not in tokenizer.decode(list(found.ids[found.gate :]))


@given(prompt=st.text(min_size=1, max_size=30), text=st.text(max_size=60), limit=st.integers(75, 200))
def test_any_text_keeps_its_prompt(tokenizer, prompt, text, limit):
    marks = ("<|", "|>")
    if not prompt.strip() or any(mark in prompt + text for mark in marks):
        return
    try:
        found = encode(tokenizer, prompt, text, limit)
    except UserError:
        assert len(prompt.encode()) > limit - 60
        return
    assert len(found.ids) <= limit
    assert tokenizer.convert_ids_to_tokens(found.ids[found.gate]) == "<|eot|>"
    assert prompt.strip() in tokenizer.decode(list(found.ids[: found.gate]))
    assert found.ids[-1] == tokenizer.eos_token_id  # a continuation that was cut still ends its turn


def test_long_continuations_lose_their_end(tokenizer):
    whole = encode(tokenizer, "Soru?", "ığüş" * 40, 1000)
    cut = encode(tokenizer, "Soru?", "ığüş" * 40, 80)
    assert cut.cut and not whole.cut and 78 <= len(cut.ids) <= 80
    assert cut.ids[:-1] == whole.ids[: len(cut.ids) - 1] and cut.ids[-1] == whole.ids[-1]
    assert cut.gate == whole.gate
    with pytest.raises(UserError, match=r"'Soru\?' alone has more than the 20 tokens"):
        encode(tokenizer, "Soru?", "Yanıt", 20)


def test_pairs(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(write_bert(tmp_path / "bert"))
    whole = encode(tokenizer, "abc", "defgh", 50)
    assert tokenizer.convert_ids_to_tokens(whole.ids[whole.gate]) == "c"
    assert whole.types == (0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1)
    cut = encode(tokenizer, "abc", "defgh", 9)
    assert cut.cut and len(cut.ids) == 9 and tokenizer.decode(cut.ids, skip_special_tokens=True) == "abcdef"
    with pytest.raises(UserError, match="alone has more than the 4 tokens"):
        encode(tokenizer, "abc", "defgh", 4)
