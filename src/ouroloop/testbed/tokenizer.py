"""Words <-> token ids: the eight words of the grammar, `<eos>` also starting and padding a sequence.

One symbol serves as start, end and padding, so a model cannot write a token that the language has
not. Padding never meets the loss: lengths are known, and labels past them are masked.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ouroloop.testbed.logic.grammar import EOS, TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = {token: i for i, token in enumerate(TOKENS)}
EOS_ID = VOCABULARY[EOS]


def encode(text: str) -> list[int]:
    """`<eos>` words `<eos>`: what a model is trained on. Raises KeyError on a word outside the alphabet."""
    return [EOS_ID, *(VOCABULARY[word] for word in text.split()), EOS_ID]


def decode(ids: Sequence[int] | Iterable[int]) -> str:
    return " ".join(TOKENS[i] for i in ids)


def build_tokenizer(context_length: int, continues: bool = False) -> "PreTrainedTokenizerFast":
    """The same mapping as a transformers tokenizer, which `AutoTokenizer` loads from the saved folder.

    A prompt gets the start symbol in front and no end symbol: a model goes on writing it. One that
    `continues` puts a space before each decoded word: a transformers pipeline decodes what follows its
    prompt by itself and joins the two as they are.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(vocab=VOCABULARY))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, EOS_ID)])
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
