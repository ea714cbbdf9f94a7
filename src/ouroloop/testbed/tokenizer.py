"""Words <-> token ids; `<eos>` also starts and pads a sequence.

One symbol serves as start, end and padding, so a model cannot write a token that the language does not
have. Padding never meets a loss: only what follows within a text's own tokens is scored.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EOS = "<eos>"


class WordTokenizer:
    """For texts of words joined by single spaces; a word's id is its place in `words`, and `<eos>` comes last."""

    max_tokens = None

    def __init__(self, words: Sequence[str]) -> None:
        self.words = (*words, EOS)
        self.eos_id = self.start_id = len(words)

    @property
    def size(self) -> int:
        return len(self.words)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def encode(self, text: str) -> list[int]:
        return [self.eos_id, *(self.vocabulary[word] for word in text.split()), self.eos_id]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids)

    def build(self, context_length: int, continues: bool = False) -> "PreTrainedTokenizerFast":
        """A transformers tokenizer, which `AutoTokenizer` loads from the saved folder.

        A prompt gets the start symbol in front and no end symbol, since a model goes on from it. A tokenizer that
        `continues` puts a space before each decoded word: a transformers pipeline decodes what follows its
        prompt separately and joins the two as they are.
        """
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(models.WordLevel(vocab=self.vocabulary))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        start = [(EOS, self.eos_id)]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=start)
        between_words = decoders.WordPiece(prefix="##", cleanup=False)  # single spaces
        tokenizer.decoder = decoders.Replace(Regex("^"), " ") if continues else between_words
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=EOS,
            eos_token=EOS,
            pad_token=EOS,
            model_max_length=context_length,
            clean_up_tokenization_spaces=False,
        )
