"""llama.cpp reads a GGUF file: its tokens of a text, and its logits of tokens. Through cyllama, a wheel with llama.cpp in
it; on the CPU, with keys, values and attention in f32."""
import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
import numpy
from cyllama.llama import llama_cpp


class Model(llama_cpp.LlamaModel):
    """get_logits_ith() asks for this member, which cyllama 0.2.18 has only in the vocabulary."""

    n_vocab = property(lambda self: self.get_vocab().n_vocab)


class File:
    F32 = 0  # ggml's number

    def __init__(self, path, positions=512):
        llama_cpp.disable_logging()
        parameters = llama_cpp.LlamaModelParams()
        parameters.n_gpu_layers = 0
        self.model = Model(str(path), parameters, False)
        self.vocabulary = self.model.get_vocab()
        settings = llama_cpp.LlamaContextParams()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = self.positions = positions
        settings.n_threads = settings.n_threads_batch = 2
        settings.type_k = settings.type_v = self.F32
        settings.flash_attn_type = 0
        self.context = llama_cpp.LlamaContext(self.model, settings, False)

    def tokens(self, text, special=False):
        """With what the file says comes before and after; `special`: control tokens in the text are taken as such."""
        return self.vocabulary.tokenize(text, True, special)

    def logits(self, tokens):
        """(tokens, vocabulary), as float64."""
        assert len(tokens) <= self.positions
        self.context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
        for position, token in enumerate(tokens):
            batch.add(token, position, [0], True)
        self.context.decode(batch)
        return numpy.array([self.context.get_logits_ith(position) for position in range(len(tokens))], dtype=float)

    def loss(self, rows):
        """Mean negative log-likelihood of the labelled tokens of (tokens, labels); -100 is no label."""
        total, count = 0.0, 0
        for tokens, labels in rows:
            logits = self.logits(tokens)[:-1]
            shifted = logits - logits.max(axis=1, keepdims=True)
            logs = shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True))
            for position, label in enumerate(labels[1:]):
                if label != -100:
                    total -= logs[position, label]
                    count += 1
        return total / count
