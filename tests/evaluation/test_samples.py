from __future__ import annotations

from evaluation.samples import samples, sentences, single_token_words
from post_training.model_folder import load_masked_lm, load_tokenizer
from preprocessing.corpus.document import Document


def test_samples_are_real_sentences_with_one_hidden_word(small_model, test_documents):
    tokenizer, model = load_tokenizer(small_model), load_masked_lm(small_model, "cpu")
    found = samples(model, tokenizer, test_documents, count=6)
    by_id = {document.id: document for document in test_documents}
    assert len(found) == 6 and len({item.source for item in found}) >= 2
    for item in found:
        assert item.before + item.truth + item.after in by_id[item.id].text
        assert len(item.guesses) == 5
        probabilities = [guess.probability for guess in item.guesses]
        assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
        assert 0 <= item.truth_probability <= probabilities[0]
    assert samples(model, tokenizer, test_documents, count=6) == found


def test_words_are_whole_and_one_token(small_model):
    tokenizer = load_tokenizer(small_model)
    sentence = "Bugün burada bütün memleket için büyük kararlar verilmiştir arkadaşlar."
    words = single_token_words(tokenizer, sentence)
    assert words
    ids = tokenizer(sentence)["input_ids"]
    for start, end, position, token in words:
        assert ids[position] == token and tokenizer.decode([token]).strip() == sentence[start:end]


def test_sentences_have_readable_length():
    text = "Kısa. Bu cümle yeterince uzun olduğu için burada kalmalıdır artık. " + "çok " * 40 + "uzun."
    document = Document("a", "a", "x", "", text)
    assert list(sentences(document)) == ["Bu cümle yeterince uzun olduğu için burada kalmalıdır artık."]
