"""Small models of several families as others save them: what a user may bring."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

TEXTS = ("The cat sat on the mat.", "A dog ran after the cat!", "and <eos> then it ends", "Nothing\nis\tlost.")


def tokenizer(**symbols: str) -> PreTrainedTokenizerFast:
    """Byte pairs; each symbol, as eos_token="</s>", is one of the vocabulary."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=alphabet, special_tokens=list(symbols.values()), show_progress=False
    )
    learnt.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=learnt, clean_up_tokenization_spaces=False, **symbols)


def save(folder: Path, model_type: str, symbols: dict[str, str], *, more_rows: int = 0, **saving: Any) -> Path:
    """With a decoding of its own, that must not be ours."""
    words = tokenizer(**symbols)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = CONFIG_MAPPING[model_type](
        vocab_size=len(words) + more_rows,
        eos_token_id=words.eos_token_id,
        bos_token_id=words.bos_token_id,
        pad_token_id=words.pad_token_id,
        **shape,
        **({} if model_type == "gpt2" else {"intermediate_size": 64, "num_key_value_heads": 1}),
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config)
    model.generation_config.do_sample = True
    model.generation_config.top_k = 1
    model.save_pretrained(folder, **saving)
    words.save_pretrained(folder)
    return folder


FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2, no pad": {"model_type": "gpt2", "symbols": {"eos_token": "<|endoftext|>"}},
    "llama, bos, rows that no token has": {
        "model_type": "llama",
        "symbols": {"bos_token": "<s>", "eos_token": "</s>"},
        "more_rows": 14,
    },
    "qwen2, sharded": {
        "model_type": "qwen2",
        "symbols": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "max_shard_size": "20kB",
    },
}
