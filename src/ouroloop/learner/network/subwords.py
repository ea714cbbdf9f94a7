"""The tokens of natural language, which has no vocabulary of its own: parts of words, from a tokenizer of transformers.

One that comes with a pretrained model is used as it is. One for a model that is trained from scratch is learnt:
byte-level byte pairs from D_0, so that any text has tokens and comes back byte for byte.

A model may spell a text with other tokens than the tokenizer does, or write bytes that are not text (each becomes
U+FFFD). The text is then taken as the tokenizer spells it.
"""

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # texts come one at a time, and it would warn about forks

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ouroloop.config import ConfigError
from ouroloop.testbed.tokenizer import EOS


@dataclass(frozen=True)
class Subwords:
    """Control symbols, such as `<eos>`, control nothing within a text: there they are spelt like other characters."""

    library: PreTrainedTokenizerBase
    max_tokens: int
    """The length after which a text is cut, `<eos>` counted: as many tokens as a model has positions for."""

    def __post_init__(self) -> None:
        if self.library.eos_token_id is None:
            raise ConfigError("the tokenizer has no symbol that ends a text (eos_token)")

    @property
    def start_id(self) -> int:
        """Id of the start symbol, or of `<eos>` where the vocabulary has none."""
        bos = self.library.bos_token_id
        return self.eos_id if bos is None else int(bos)

    @property
    def eos_id(self) -> int:
        return int(self.library.eos_token_id)

    @property
    def size(self) -> int:
        return len(self.library)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.library.encode(text, add_special_tokens=False, split_special_tokens=True)
        return [self.start_id, *ids, self.eos_id][: self.max_tokens + 1]

    def decode(self, ids: Sequence[int]) -> str:
        text = self.library.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def build(self, context_length: int, continues: bool = False) -> PreTrainedTokenizerBase:
        """The tokenizer itself: what follows a prompt is joined to it as it is."""
        built = deepcopy(self.library)
        built.model_max_length = context_length
        return built

    def within(self, max_tokens: int) -> Self:
        return replace(self, max_tokens=max_tokens)

    def require_room(self, texts: Sequence[str], what: str) -> None:
        """Raise ConfigError when one of the texts would be cut."""
        whole = self.within(10**9)
        lengths = [len(whole.encode(text)) - 1 for text in texts]
        too_long = sum(length > self.max_tokens for length in lengths)
        if too_long:
            raise ConfigError(
                f"{too_long:,} of {len(texts):,} texts of D_0 have more tokens than {what} {self.max_tokens}, "
                f"<eos> counted (the longest has {max(lengths):,}); raise it, or use shorter texts"
            )

    def num_lost(self, texts: Sequence[str]) -> int:
        """How many texts do not come back as they were; those that are cut count."""
        return sum(self.decode(self.encode(text)[1:-1]) != text for text in texts)


def byte_pairs(texts: Sequence[str], vocabulary_size: int, max_tokens: int) -> Subwords:
    """Learnt from the texts, equal from equal ones: the 256 bytes, `<eos>`, and the most frequent pairs of pairs."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    start = [(EOS, tokenizer.token_to_id(EOS))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=start)
    library = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )
    return Subwords(library, max_tokens)


def of_size(vocabulary_size: int, max_tokens: int) -> Subwords:
    """A stand-in for a tokenizer that is still to be learnt: bytes, and tokens that no text has."""
    stand_in = byte_pairs([], 0, max_tokens)
    stand_in.library.add_tokens([f"<{i}>" for i in range(vocabulary_size - stand_in.size)])
    return stand_in


def saved(folder: Path) -> Subwords:
    """The tokenizer that a model was saved with."""
    library = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return Subwords(library, library.model_max_length)
